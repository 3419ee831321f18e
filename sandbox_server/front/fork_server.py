"""The front end's handle on one fork server process: start it, order children, learn their ends.

Children are known by numbers of our own; the process ids it sees come from pidfds, so that a pid
namespace in between does not matter. Restarting a dead fork server is the pool's business.

The life of one child, as messages on the fork server's socket (the job goes past it, execution.py):

  out: {"op": "child", "uid_index": 3, "id": 17} with the far ends of stdout, stderr and control
  in:  {"op": "forked", "id": 17} with a pidfd: `spawn` returns, the child waits for its job
  in:  {"op": "exit", "id": 17, "status": 0, "cpu_ms": 9, "peak_kib": 131072}: `Child.ended`

The fork server sends "exit" when it has reaped the child, so it comes after the child's last byte.
"""

import asyncio
import contextlib
import dataclasses
import heapq
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence

from sandbox_server.inside.lockdown import Tier

START_TIMEOUT_S = 120.0  # a cold import of scipy and sympy from a slow disk
_FORK_TIMEOUT_S = 30.0  # then the fork server hangs, and is killed
_STOP_TIMEOUT_S = 2.0  # to end what runs under it
_BOOT = (
    "import sys; sys.path.append(sys.argv.pop(1)); "
    "from sandbox_server.inside import first_interpreter; "
    "sys.exit(first_interpreter.main(sys.argv[1:]))"
)
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "TZ": "UTC",
    "PYTHONHASHSEED": "0",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
}  # built, never inherited


class ForkServerGone(Exception):
    """The fork server ended; what ran under it is lost and may be run again."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exit:
    """What the kernel said of an ended child."""

    status: int  # as of wait()
    cpu_ms: int
    peak_bytes: int  # resident memory on top of the warm interpreter

    @property
    def signal(self) -> int:
        return os.WTERMSIG(self.status) if os.WIFSIGNALED(self.status) else 0

    @property
    def code(self) -> int:
        return os.WEXITSTATUS(self.status) if os.WIFEXITED(self.status) else -1


@dataclasses.dataclass(kw_only=True)
class Child:
    """A locked child and our ends of its pipes. Owns the descriptors until `close`."""

    uid_index: int
    stdout: int
    stderr: int
    control: socket.socket
    ended: asyncio.Future[Exit]
    ends_others: bool = False  # a session's supervisor: it is told to end, not killed at once
    pid: int = 0
    pidfd: int = -1

    def kill(self) -> None:
        if self.pidfd >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def close(self) -> None:
        """Kills what still runs and gives all descriptors back."""
        self.kill()
        for fd in (self.stdout, self.stderr, self.pidfd):
            if fd >= 0:
                os.close(fd)
        self.stdout = self.stderr = self.pidfd = -1
        self.control.close()


class UidIndexes:
    """Smallest free numbers first; each number is a user id inside, so never shared."""

    def __init__(self, count: int):
        self._free = list(range(1, count))

    def __len__(self) -> int:
        return len(self._free)

    def take(self) -> int:
        if not self._free:
            raise RuntimeError("no user id is free")
        return heapq.heappop(self._free)

    def give_back(self, uid_index: int) -> None:
        heapq.heappush(self._free, uid_index)


def _end(process: subprocess.Popen) -> None:
    """Lets the process end what runs under it, then kills it; a moment at most."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):  # reaped by a later poll
                process.wait(_STOP_TIMEOUT_S)


def make_pipe() -> tuple[int, int]:
    """Pipe whose read end does not block and whose write end does."""
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    os.set_blocking(write, True)
    return read, write


def make_child(
    uid_index: int, kind: socket.SocketKind
) -> tuple[Child, list[int], contextlib.ExitStack]:
    """A child that has no process yet, the far ends of its pipes, and what closes those.

    They must be closed here once they are sent, or the pipes would not end with their child.
    """
    stdout_read, stdout_write = make_pipe()
    stderr_read, stderr_write = make_pipe()
    ours, theirs = socket.socketpair(socket.AF_UNIX, kind)
    ours.setblocking(False)
    closing = contextlib.ExitStack()
    closing.callback(os.close, stdout_write)
    closing.callback(os.close, stderr_write)
    closing.callback(theirs.close)
    child = Child(
        uid_index=uid_index,
        stdout=stdout_read,
        stderr=stderr_read,
        control=ours,
        ended=asyncio.get_running_loop().create_future(),
    )
    return child, [stdout_write, stderr_write, theirs.fileno()], closing


def command(setup: dict) -> list[str]:
    """Command line of a fork server; it never looks at the working directory or user site."""
    root = str(pathlib.Path(__file__).resolve().parents[2])
    return [sys.executable, "-s", "-P", "-B", "-c", _BOOT, root, json.dumps(setup)]


def real_pid(pidfd: int) -> int:
    """Process id as this process sees it, 0 if it has ended."""
    fd = os.open(f"/proc/self/fdinfo/{pidfd}", os.O_RDONLY)
    match = re.search(rb"\nPid:\s*(-?\d+)", os.read(fd, 512))
    os.close(fd)
    return max(0, int(match.group(1))) if match else 0


class ForkServer:
    """One warm fork server process."""

    def __init__(
        self,
        tier: Tier,
        scratch_bytes: int,
        with_scipy: bool,
        uid_indexes: UidIndexes,
        packages: Sequence[str] = (),
    ):
        self._tier = tier
        self._uid_indexes = uid_indexes
        self._with_scipy = with_scipy
        self._packages = tuple(packages)
        self._importing = ""  # which of them, while it starts
        self._scratch_bytes = scratch_bytes
        self._children: dict[int, Child] = {}
        self._forked: dict[int, asyncio.Future[Child]] = {}
        self._next = 1
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen | None = None
        self._ready: asyncio.Future[dict] | None = None
        self.gone: asyncio.Future[None] | None = None
        self.facts: dict = {}

    @property
    def is_alive(self) -> bool:
        return self.gone is not None and not self.gone.done()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    async def start(self) -> None:
        """Starts the process and waits until it is warm."""
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._channel, self._ready, self.gone = ours, loop.create_future(), loop.create_future()
        setup = {
            "tier": self._tier,
            "fd": theirs.fileno(),
            "parent": os.getpid(),
            "scratch_bytes": self._scratch_bytes,
            "is_probe": False,
            "with_scipy": self._with_scipy,
            "packages": self._packages,
        }
        with theirs:
            self._process = subprocess.Popen(
                command(setup),
                env=ENVIRONMENT,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
            )
        loop.add_reader(ours, self._on_message)
        try:
            self.facts = await asyncio.wait_for(asyncio.shield(self._ready), START_TIMEOUT_S)
        except TimeoutError:
            self.stop()
            raise ForkServerGone(
                f"the fork server was not warm after {START_TIMEOUT_S:.0f} s: the machine is too busy, or "
                "its disk too slow"
            ) from None
        except asyncio.CancelledError:
            self.stop()
            raise

    def private_bytes(self, peak_kib: int) -> int:
        """Of a peak of resident memory, what is on top of the warm interpreter."""
        return max(0, peak_kib - self.facts.get("base_rss_kib", 0)) * 1024

    def stop(self) -> None:
        """Ends the process and what runs under it."""
        self._lose("stopped")

    async def spawn(self) -> Child:
        """A new child, waiting for its job."""
        return await self._order({"op": "child"}, socket.SOCK_STREAM)

    async def spawn_supervisor(self, settings: dict) -> Child:
        """The supervisor of a session; its control socket keeps message boundaries."""
        return await self._order({"op": "session_supervisor"} | settings, socket.SOCK_SEQPACKET)

    async def _order(self, header: dict, kind: socket.SocketKind) -> Child:
        """Sends `header` with fresh pipes and a socket; the forked process that holds them."""
        if self._ready is not None:  # while it warms up; `start` bounds that
            await asyncio.shield(self._ready)
        if self._channel is None or not self.is_alive:
            raise ForkServerGone("the fork server is not running")
        uid_index = self._uid_indexes.take()
        child, far_ends, closing = make_child(uid_index, kind)
        child.ends_others = kind == socket.SOCK_SEQPACKET
        # Free when its end is known, not before: whoever waits for the child may leave earlier.
        child.ended.add_done_callback(lambda _: self._uid_indexes.give_back(uid_index))
        # The child is known before it is forked: it may have ended by the time its pidfd arrives.
        name = self._next
        self._next += 1
        self._children[name] = child
        forked = self._forked[name] = asyncio.get_running_loop().create_future()
        with closing:
            try:
                message = json.dumps(header | {"id": name, "uid_index": uid_index}).encode()
                socket.send_fds(self._channel, [message], far_ends)
            except OSError as error:
                self._lose(str(error))
        try:
            async with asyncio.timeout(_FORK_TIMEOUT_S):
                return await forked
        except TimeoutError:
            self._lose(f"no answer to an order in {_FORK_TIMEOUT_S:.0f} s")
            child.close()
            raise ForkServerGone(f"fork server {self.pid} did not answer") from None
        except BaseException:
            child.close()
            forked.cancel()
            raise

    def _on_message(self) -> None:
        while self._channel is not None:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, 4096, 4)
            except BlockingIOError:
                return
            except OSError as error:
                return self._lose(str(error))
            if not data:
                return self._lose("its socket closed")
            self._take(json.loads(data), fds)

    def _take(self, message: dict, fds: list[int]) -> None:
        if message["op"] == "importing":
            self._importing = message["package"]
            return
        if message["op"] == "unfit":
            self._importing = ""
            return self._lose(message["why"])
        if message["op"] == "ready":
            self._importing = ""
            assert self._ready is not None
            if not self._ready.done():
                self._ready.set_result(message)
            return
        child = self._children.get(message["id"])
        if message["op"] == "forked":
            forked = self._forked.pop(message["id"], None)
            if child is None or forked is None:
                for fd in fds:
                    os.close(fd)
                return
            child.pidfd = fds[0]
            child.pid = real_pid(fds[0])
            if forked.cancelled():  # whoever wanted it has left meanwhile
                child.close()
            else:
                forked.set_result(child)
        elif message["op"] == "exit" and child is not None:
            del self._children[message["id"]]
            end = Exit(
                status=message["status"],
                cpu_ms=message["cpu_ms"],
                peak_bytes=self.private_bytes(message["peak_kib"]),
            )
            if not child.ended.done():
                child.ended.set_result(end)

    def _lose(self, why: str) -> None:
        """Fails everything that waits on this process."""
        if self._channel is not None:
            asyncio.get_running_loop().remove_reader(self._channel)
            self._channel.close()
            self._channel = None
        if self._process is not None:
            _end(self._process)
        if self._importing:
            why = f"while it imported package {self._importing}: {why}"
        error = ForkServerGone(f"fork server {self.pid}: {why}")
        for child in self._children.values():
            if not child.ends_others:
                child.kill()  # in the Landlock tier nothing else would at once
        futures = [self._ready, *self._forked.values()]
        futures += [child.ended for child in self._children.values()]
        for future in futures:
            if future is not None and not future.done():
                future.set_exception(error)
                future.exception()  # nobody may be waiting: do not warn
        self._children.clear()
        self._forked.clear()
        if self.gone is not None and not self.gone.done():
            self.gone.set_result(None)
