"""What a host reaches: sandbox and search servers, a bucket, the other processes of a run.

Servers are asked by the functions that a run asks them with at its start.
"""

import errno
import socket
from asyncio import Runner

from jaxtool.cluster.findings import Finding
from jaxtool.core.bucket_files import check_access
from jaxtool.tools.preflight import SNIPPETS
from jaxtool.tools.search import Search
from jaxtool.train.sources import Sandbox, open_sandbox
from sandbox_server.wire import sandbox_pb2 as pb

_TIMEOUT_S = 5.0


def check_sandbox(addresses: tuple[str, ...] = ()) -> Finding:
    """The preflight of a run, and the weakest tier of the servers; none given: of one started here.

    Raises:
      PreflightError, ServerStartError, ToolUnavailable: as a run would.
    """
    with Runner() as runner, open_sandbox(Sandbox(), runner, addresses) as client:
        said = runner.run(client.info())
    tiers, remarks = [], []
    for address, info in said.items():
        if isinstance(info, str):
            raise ConnectionError(f"{address}: {info}")
        tiers.append(info.tier)
        remarks += [f"{address}: {remark}" if addresses else remark for remark in info.remarks]
    where = f"{len(said)} servers" if addresses else "a server started here"
    names = ", ".join(sorted({pb.Tier.Name(tier).lower() for tier in tiers}))
    text = f"{where}: {len(SNIPPETS)} programs answered as expected, {names}"
    if all(tier == pb.TIER_NAMESPACE for tier in tiers) and not remarks:
        return Finding(name="sandbox", status="ok", text=text)
    text += f"; {'; '.join(remarks)}" if remarks else ""
    return Finding(
        name="sandbox", status="warn", text=text, remedy="docs/sandbox.md says what it needs"
    )


def check_search(addresses: tuple[str, ...]) -> Finding:
    """Every server gives passages, asked as a run asks.

    Raises:
      PreflightError, ToolUnavailable: as a run would.
    """
    with Runner() as runner:
        tool = Search(addresses=addresses).open()
        try:
            runner.run(tool.preflight())
        finally:
            runner.run(tool.close())
    text = f"{', '.join(addresses)} gave passages"
    return Finding(name="search", status="ok", text=text)


def check_bucket(url: str) -> Finding:
    """A small object is written, read and deleted. Raises as `check_access`."""
    return Finding(name="bucket", status="ok", text=check_access(url))


def check_peer(address: str, timeout_s: float = _TIMEOUT_S) -> Finding:
    """Whether another process of a run can be reached, or, where the address is this host's own, be listened for.

    A port on which nobody listens is right before a run: its host has answered.

    Raises:
      ValueError: the address is no host:port.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"{address!r} must be host:port, as in 10.0.0.1:9000")
    name = "peer"
    try:
        place = socket.getaddrinfo(host, int(port), type=socket.SOCK_STREAM)[0]
    except OSError as error:
        text, remedy = f"{host} has no address ({error.strerror})", "mend the name, or give its IP"
        return Finding(name=name, status="fail", text=text, remedy=remedy)
    try:
        with socket.create_connection((host, int(port)), timeout=timeout_s):
            return Finding(name=name, status="ok", text=f"{address} answers")
    except ConnectionRefusedError:
        pass
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else str(error.strerror)
        text = f"{address}: {reason} in {timeout_s:g} s"
        remedy = f"open port {port} between the hosts, or mend the address"
        return Finding(name=name, status="fail", text=text, remedy=remedy)
    with socket.socket(place[0], socket.SOCK_STREAM) as own:
        own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            own.bind(place[4])
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:  # of another host
                text, remedy = f"{address} cannot be listened on ({error.strerror})", "another port"
                return Finding(name=name, status="fail", text=text, remedy=remedy)
            text = f"{address}: the host answers, nobody listens on the port yet"
            return Finding(name=name, status="ok", text=text)
    return Finding(name=name, status="ok", text=f"{address} is of this host, and free")
