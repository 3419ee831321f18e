"""Starts sandbox servers for tests, as root or as a plain user, and watches what they leave."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import Any

import grpc
import pytest

from sandbox_server.config import ServerConfig
from sandbox_server.front import probe
from sandbox_server.inside.lockdown import Tier
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

# Of each test process its own: the Landlock tier counts the threads of all programs of a user together.
PLAIN_UID = 60_001 + os.getpid() % 5000
_AS_USER = str(pathlib.Path(__file__).with_name("as_plain_user.py"))
_ROOT = str(pathlib.Path(__file__).resolve().parents[2])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Serving:
    """A running server and a blocking stub to it."""

    pid: int
    address: str
    folder: pathlib.Path
    stub: sandbox_pb2_grpc.SandboxStub
    process: subprocess.Popen

    def log(self) -> str:
        return (self.folder / "log").read_text("utf-8", "replace")

    def execute(self, code: str, **fields) -> pb.ExecuteResponse:
        return self.stub.Execute(pb.ExecuteRequest(code=code, **fields), timeout=60)

    def descendants(self) -> set[int]:
        """All processes below the server."""
        return set(self._tree())

    def _tree(self) -> list[int]:
        """All processes below the server, each after its parent."""
        children: dict[int, list[int]] = {}
        for entry in pathlib.Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError, IndexError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    children.setdefault(int(fields[1]), []).append(int(entry.name))
        below, pending = [], [self.pid]
        while pending:
            for pid in children.get(pending.pop(), []):
                below.append(pid)
                pending.append(pid)
        return below

    def kill_descendants(self) -> None:
        """SIGKILL to each, to parents first: one that lived on would tell of a program that was killed.

        One that ends with its parent, as in a namespace, is gone already.
        """
        for pid in self._tree():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def open_descriptors(self) -> int:
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def footprint(self) -> tuple[int, int]:
        return len(self.descendants()), self.open_descriptors()

    def resting_footprint(self, still_s: float = 0.5, timeout_s: float = 5.0):
        """The footprint once it has been the same for `still_s`: what came before is gone by then."""
        stop = time.monotonic() + timeout_s
        footprint, since = self.footprint(), time.monotonic()
        while time.monotonic() - since < still_s and time.monotonic() < stop:
            time.sleep(0.02)
            if (now := self.footprint()) != footprint:
                footprint, since = now, time.monotonic()
        return footprint

    def settled_footprint(self, expected: tuple[int, int], timeout_s: float = 5.0):
        """The footprint, given time to come back to `expected`; less counts as that, since a child may have been ending."""
        stop = time.monotonic() + timeout_s
        while True:
            now = self.footprint()
            most = (max(now[0], expected[0]), max(now[1], expected[1]))
            if most == expected or time.monotonic() > stop:
                return most
            time.sleep(0.02)


@functools.cache
def why_not(tier: str, as_user: bool) -> str:
    """Empty if `tier` works here for root or for a plain user, otherwise the reason."""
    if as_user and os.geteuid() != 0:
        return "changing to another user needs root"
    if as_user:
        code = (
            "from sandbox_server.front import probe; from sandbox_server.inside.lockdown import "
            f"Tier; print(probe.works(Tier({tier!r}), 1 << 20), end='')"
        )
        command = [sys.executable, _AS_USER, str(PLAIN_UID), sys.executable, "-c"]
        code = f"import sys; sys.path.insert(0, {_ROOT!r}); {code}"
        done = subprocess.run([*command, code], capture_output=True, text=True, check=False)
        return done.stdout + done.stderr
    return probe.works(Tier(tier), ServerConfig().default_limits.scratch_bytes)


@contextlib.contextmanager
def serving(
    *flags: str,
    as_user: bool = False,
    env: dict[str, str] | None = None,
    open_files: int | None = None,
):
    """A server for the length of a `with` block; checks that it ends and leaves no process.

    `open_files` is what `ulimit -n` allows it.
    """
    folder = pathlib.Path(tempfile.mkdtemp(prefix="sandbox-test-"))
    folder.chmod(0o777)
    command = [sys.executable, "-m", "sandbox_server", "--ready-file", str(folder / "ready")]
    if "--address" not in flags:
        command += ["--address", f"unix:{folder}/s"]
    command += ["--drain-s", "1", *flags]
    if as_user:
        command = [sys.executable, _AS_USER, str(PLAIN_UID), *command]
    if open_files is not None:
        command = ["sh", "-c", f'ulimit -n {open_files}; exec "$@"', "sh", *command]
    environment = dict(os.environ) | {"PYTHONPATH": _ROOT} | (env or {})
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        address = _wait(process, folder)
        with grpc.insecure_channel(address) as channel:
            yield Serving(
                pid=process.pid,
                address=address,
                folder=folder,
                stub=sandbox_pb2_grpc.SandboxStub(channel),
                process=process,
            )
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _wait(process: subprocess.Popen, folder: pathlib.Path) -> str:
    stop = time.monotonic() + 120
    while time.monotonic() < stop and process.poll() is None:
        if (folder / "ready").exists():
            return (folder / "ready").read_text()
        time.sleep(0.02)
    raise RuntimeError(f"the server did not start:\n{(folder / 'log').read_text()}")


def setups() -> Iterator[tuple[str, bool]]:
    """Tier and whether as a plain user."""
    for tier in ("namespace", "landlock"):
        for as_user in (False, True):
            yield tier, as_user


def setup_params() -> list[Any]:
    """`setups` with names. By root two of the four are nightly: each tier, and each user, is in the other two."""
    params = []
    for tier, as_user in setups():
        is_extra = os.geteuid() == 0 and as_user == (tier == "namespace")
        name = f"{tier}-{'user' if as_user else 'self'}"
        marks = [pytest.mark.nightly] if is_extra else []
        params.append(pytest.param((tier, as_user), id=name, marks=marks))
    return params


def flags_for(tier: str) -> Sequence[str]:
    return ("--isolation", tier)
