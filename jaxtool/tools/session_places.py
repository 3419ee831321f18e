"""Sessions that a client has at each server, and what a run asks of its servers before it opens the first.

A server that is full ends the session that is idle longest, which is somebody's state. So a client that knows a
server's capacity never asks for more: it takes the server with the most room, and waits where there is none.

Not covered: sessions of other clients on the same servers.
"""

import dataclasses
from collections.abc import Mapping, Sequence

from jaxtool.core.types import ToolUnavailable
from jaxtool.tools.balancer import Endpoint
from jaxtool.tools.code_sessions import SessionRunner
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.retries import TryAgain
from sandbox_server.wire import sandbox_pb2 as pb

_FULL_PAUSE_S = 0.05
# Of a server: the default of --session-capacity and --session-idle-s, and the most that the former takes.
_DEFAULT_CAPACITY, _MOST_CAPACITY, _DEFAULT_IDLE_S = 64, 1024, 600.0


class SessionPlaces:
    """Counts only; no network."""

    def __init__(self, addresses: Sequence[str]):
        self._taken = dict.fromkeys(addresses, 0)
        self._capacity: dict[str, int] = {}  # by address; unknown until told

    @property
    def taken(self) -> int:
        """Sessions that are open or being opened, at all servers."""
        return sum(self._taken.values())

    def learn(self, capacity: Mapping[str, int]) -> None:
        """How many sessions each server keeps."""
        self._capacity = dict(capacity)

    def load(self, endpoint: Endpoint) -> float:
        """Share of a server's places that are taken; where nobody knows how many it has, their number."""
        return self._taken[endpoint.address] / self._capacity.get(endpoint.address, 1)

    def take(self, address: str) -> None:
        """Raises TryAgain if the server is full."""
        capacity = self._capacity.get(address)
        if capacity is not None and self._taken[address] >= capacity:
            raise TryAgain(
                f"sandbox at {address}: all {capacity} sessions are open",
                is_busy=True,
                is_sick=False,
                pause_s=_FULL_PAUSE_S,
            )
        self._taken[address] += 1

    def give_back(self, address: str) -> None:
        self._taken[address] -= 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class SessionNeeds:
    """What a run's sessions ask of all its servers together."""

    sessions: int  # at once: one for each row of this host's cache
    setting: str = "EngineConfig.decode_rows"  # that sets them
    hosts: int = 1  # that may share servers, each with as many
    idle_s: float  # between two programs of a trajectory
    has_checkpoints: bool = True

    @property
    def flags(self) -> tuple[str, ...]:
        """For a server of this host's own."""
        capacity = min(max(_DEFAULT_CAPACITY, self.sessions), _MOST_CAPACITY)
        idle_s = max(_DEFAULT_IDLE_S, self.idle_s)
        return ("--session-capacity", str(capacity), "--session-idle-s", f"{idle_s:g}")

    def capacity_of(self, said: Mapping[str, pb.InfoResponse | str]) -> dict[str, int]:
        """Sessions that each server keeps.

        Args:
          said: what each server says of itself, or why it says nothing; by address.

        Raises:
          PreflightError: one cannot be asked, ends idle sessions too early, or they keep too few.
        """
        capacity = {}
        for address, info in said.items():
            if isinstance(info, str):
                raise PreflightError(f"the sandbox server at {address} cannot be asked: {info}")
            capacity[address] = info.session_capacity
            longest_s = info.session_idle_ms / 1000
            if longest_s and longest_s < self.idle_s:  # 0: a server that does not say
                raise PreflightError(
                    f"the sandbox server at {address} ends sessions that are idle for {longest_s:g} s, and "
                    f"PythonSandbox.session_idle_s={self.idle_s:g}: start it with --session-idle-s "
                    f"{self.idle_s:g}, or set session_idle_s lower"
                )
        # A unix socket is of this host alone.
        sharing = 1 if all(address.startswith("unix:") for address in said) else self.hosts
        wanted = self.sessions * sharing
        if sum(capacity.values()) < wanted:
            raise PreflightError(self._too_few(wanted, sharing, capacity))
        return capacity

    def _too_few(self, wanted: int, sharing: int, capacity: Mapping[str, int]) -> str:
        each = ", ".join(f"{n} at {address}" for address, n in capacity.items())
        rows = f"{self.sessions} rows in flight" + (f" on {sharing} hosts" if sharing > 1 else "")
        least = -(-wanted // len(capacity))
        servers = f"start each server with --session-capacity {least}"
        if least > _MOST_CAPACITY:
            servers = f"give {-(-wanted // _MOST_CAPACITY)} servers of --session-capacity {_MOST_CAPACITY}"
        return (
            f"PythonSandbox.state='trajectory': {rows} have {wanted} sessions at once, and the sandbox keeps "
            f"{sum(capacity.values())} ({each}): {servers}, or set {self.setting} lower"
        )


async def check_session(runner: SessionRunner, *, has_checkpoints: bool) -> None:
    """Two programs in one session, the second with the first's variable.

    Raises:
      PreflightError: in one line.
    """
    try:
        session = await runner.create_session(has_checkpoints=has_checkpoints)
        try:
            await session.execute("x = 41")
            block = await session.execute("print(x + 1)")
        finally:
            await session.close()
    except ToolUnavailable as error:
        raise PreflightError(f"preflight 'session': {error}") from error
    got = (block.result.stdout, block.result.error_type)
    if got != ("42\n", ""):
        raise PreflightError(
            f"preflight 'session': print(x + 1) after x = 41: expected '42\\n', got {got[0] or got[1]!r}"
        )
