"""Starts a sandbox or search server as a child process for as long as a `with` block lasts.

A sandbox listens on a unix socket in a private temporary directory, a search server on a free port of loopback. It ends with this process, however
that ends: the server watches a pipe whose other end we hold, and removes the directory when we cannot.
If both are killed, the next start removes it.
"""

import contextlib
import dataclasses
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from jaxtool.core.locks import temporary_directory

_STOP_TIMEOUT_S = 10.0
_LOG_TAIL_CHARS = 2000
_UNIX_PATH_LIMIT = 100  # the kernel takes 107 bytes
_REFUSED = (
    2  # exit code of a server that was given something wrong; the last line of its log says what
)


class ServerStartError(RuntimeError):
    """The server did not come up."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LocalServer:
    """A running server: its address for SandboxClient, its process, its log."""

    address: str
    pid: int
    log_path: pathlib.Path


def _log_tail(path: pathlib.Path) -> str:
    text = path.read_text("utf-8", "replace")[-_LOG_TAIL_CHARS:].strip()
    return text or "(its log is empty)"


def _wait_until_ready(
    process: subprocess.Popen, ready: pathlib.Path, log: pathlib.Path, timeout_s: float, what: str
) -> str:
    stop = time.monotonic() + timeout_s
    while time.monotonic() < stop:
        if ready.exists():
            return ready.read_text("utf-8")
        if process.poll() == _REFUSED:
            reason = _log_tail(log).splitlines()[-1]
            raise ServerStartError(f"the {what} ended with code {_REFUSED}: {reason}")
        if process.poll() is not None:
            raise ServerStartError(
                f"the {what} ended with code {process.returncode} before it was ready; "
                f"end of its log:\n{_log_tail(log)}"
            )
        time.sleep(0.02)
    raise ServerStartError(
        f"the {what} was not ready after {timeout_s} s; end of its log:\n{_log_tail(log)}"
    )


def _stop(process: subprocess.Popen) -> None:
    assert process.stdin is not None
    process.stdin.close()
    process.terminate()
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def run_local_server(
    *, flags: Sequence[str] = (), start_timeout_s: float = 120.0
) -> Iterator[LocalServer]:
    """Runs `python -m sandbox_server` with extra `flags`; ready (health SERVING) when it yields."""
    with temporary_directory("sandbox-") as root:
        socket_path = root / "s"
        is_short = len(str(socket_path)) < _UNIX_PATH_LIMIT
        address = f"unix:{socket_path}" if is_short else "127.0.0.1:0"
        own = ["--address", address, "--drain-s", "1", "--remove-after-starter", str(root)]
        started = _child("sandbox_server", [*own, *flags], root, start_timeout_s)
        with started as server:
            yield server


@contextlib.contextmanager
def run_local_search(*, flags: Sequence[str], start_timeout_s: float) -> Iterator[LocalServer]:
    """Runs `python -m search_server` on a free port; `flags` name its corpus or its index."""
    with temporary_directory("search-") as root:
        own = ["--address", "127.0.0.1:0", "--drain-s", "1"]
        with _child("search_server", [*own, *flags], root, start_timeout_s) as server:
            yield server


@contextlib.contextmanager
def _child(
    module: str, flags: Sequence[str], root: pathlib.Path, start_timeout_s: float
) -> Iterator[LocalServer]:
    """A server that ends with the block, or when the pipe to this process closes."""
    ready, log = root / "ready", root / "log"
    command = [sys.executable, "-m", module, "--ready-file", str(ready), "--exit-on-stdin-eof"]
    # A trainer's malloc keeps its memory (jaxtool/cli/entry.py); the server's is that of a server alone.
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    with open(log, "wb") as output:
        process = subprocess.Popen(
            [*command, *flags],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
        )
    try:
        what = module.replace("_", " ")
        address = _wait_until_ready(process, ready, log, start_timeout_s, what)
        yield LocalServer(address=address, pid=process.pid, log_path=log)
    finally:
        _stop(process)


@contextlib.contextmanager
def start_local_server(
    *, flags: Sequence[str] = (), start_timeout_s: float = 120.0
) -> Iterator[str]:
    """As `run_local_server`, yielding the address only."""
    with run_local_server(flags=flags, start_timeout_s=start_timeout_s) as server:
        yield server.address
