"""Who may fork in a session: each fork is ordered, its caller known, its child named by the kernel.

User code cannot fork: clone goes to the supervisor (seccomp notification), which allows only the
forks that it has just ordered, each by the one process that may call it. The new process says hello
on a channel where the kernel attaches its process id. So every process of a session is known, or
there was no right hello: then the order has failed and the session must end with all its processes.

A checkpoint takes one fork, by its source. A branch takes two, for it must become the supervisor's
child: the source forks a copy, the copy forks the branch and ends.
"""

import contextlib
import dataclasses
import fcntl
import os
import select
import signal
import socket
import struct
import time

from sandbox_server.inside import linux

_NOTIF_RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_NOTIF_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel carries the call out
HELLO_TIMEOUT_S = 5.0


class Unresponsive(Exception):
    """A session process did not do as ordered: its session must end, nobody knows what it made."""


@dataclasses.dataclass(kw_only=True)
class Process:
    """A session process or a checkpoint: its id as the kernel told it, our end of its channel."""

    pid: int
    channel: socket.socket

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclasses.dataclass(kw_only=True)
class _Order:
    """One order to fork, while it is carried out."""

    source: int
    known: frozenset[int]  # the session's processes before the order
    forks: int  # it takes
    callers: list[int] = dataclasses.field(default_factory=list)  # who has forked so far

    def allows(self, pid: int) -> bool:
        """Whether thread `pid` may fork now: the source first, then the copy that it made."""
        if len(self.callers) >= self.forks:
            return False
        if not self.callers:
            return pid == self.source
        # All others are known, so a process that is not is the copy.
        return pid not in self.known and _is_process(pid)

    def is_made(self, pid: int, *, is_filtered: bool) -> bool:
        """Whether process `pid` is what the order was to make, and nothing else was made."""
        has_all = len(self.callers) == self.forks or not is_filtered
        return has_all and pid != 0 and pid not in self.known.union(self.callers)


class ForkGate:
    """Answers the notifications of one session, and has its processes fork on order."""

    def __init__(self, listener: int, front: socket.socket | None = None):
        self._listener = listener  # -1 where nothing is filtered
        self._front = front
        self._order: _Order | None = None
        self._calls = select.poll()
        if listener >= 0:
            self._calls.register(listener, select.POLLIN)

    def fork(
        self, source: Process, fds: list[int], *, order: str, known: frozenset[int]
    ) -> Process:
        """Orders `source` to fork; the new process, known by its pid. Raises Unresponsive."""
        # 1. A channel for the new process. On it the kernel attaches the sender's process id.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        ours.settimeout(HELLO_TIMEOUT_S)
        # 2. Leave to fork before the order, for the clone may come at once.
        self._order = _Order(source=source.pid, known=known, forks=2 if order == "branch" else 1)
        try:
            # 3. The order. The source has been stopped since its last block: its threads wake too.
            source.signal(signal.SIGCONT)
            with theirs:
                socket.send_fds(source.channel, [order.encode()], [theirs.fileno(), *fds])
            pid = self._await_hello(ours)
            if not self._order.is_made(pid, is_filtered=self._listener >= 0):
                raise Unresponsive("the session's process broke the protocol")
            return Process(pid=pid, channel=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            # 5. From here on a clone is the program's wish, not ours.
            self._order = None

    def _await_hello(self, channel: socket.socket) -> int:
        """Process id of who says hello on `channel`; answers calls meanwhile."""
        # 4. Until the new process says hello, calls are decided here: the source hangs in its
        #    clone until it is answered, and the main loop does not run meanwhile.
        poller = select.poll()
        poller.register(channel, select.POLLIN)
        if self._listener >= 0:
            poller.register(self._listener, select.POLLIN)
        if self._front is not None:
            poller.register(self._front, 0)  # its end is told even so
        stop = time.monotonic() + HELLO_TIMEOUT_S
        while (left_ms := round((stop - time.monotonic()) * 1000)) > 0:
            for fd, _ in poller.poll(left_ms):
                if fd == channel.fileno():
                    return _sender(channel)
                if fd != self._listener:
                    raise Unresponsive("the front end has gone")
                self.decide()
        raise Unresponsive("the session's process does not answer")

    def decide(self) -> None:
        """Answers one notification: an ordered fork, or a signal of a process to itself."""
        # 1. Is there still one? The loop may have looked before an order answered it, or all who
        #    could call are dead. The ioctl below would then wait for a next call, deaf to all else.
        if not any(events & select.POLLIN for _, events in self._calls.poll(0)):
            return
        # 2. Who calls what. struct seccomp_notif: id, pid, flags, then number, architecture,
        #    instruction pointer and six arguments. `pid` is a thread's: a process's own number only
        #    for its main thread, so a thread that a block left behind never passes for its process.
        note = bytearray(80)
        try:
            fcntl.ioctl(self._listener, _NOTIF_RECEIVE, note)
        except OSError:  # the caller is gone
            return
        name, pid, _, nr, _, _, first = struct.unpack_from("=QIIiIQQ", note)
        is_fork = nr == linux.number("clone", linux.MACHINE)  # the filter lets threads through
        if is_fork:
            may = self._order is not None and self._order.allows(pid)
        else:
            # 3. kill and tgkill: to the calling process itself, the low half of the first argument.
            may = first & 0xFFFFFFFF == pid
        # 4. struct seccomp_notif_resp: id, value, error, flags. The kernel does the call, or EPERM.
        #    The registers that were judged are those it uses: nobody can change them meanwhile.
        response = struct.pack("=QqiI", name, 0, 0 if may else -1, _CONTINUE if may else 0)
        try:
            fcntl.ioctl(self._listener, _NOTIF_SEND, response)
        except OSError:  # killed while it waited, or a signal came: then it calls again
            return
        if is_fork and may and self._order is not None:
            self._order.callers.append(pid)


def await_adoption(process: Process) -> None:
    """Waits until `process` is this process's child, so that its death is told here.

    A branch is a grandchild of its source; until the copy between them has ended, the copy would
    get the news, and the end of the copy would continue the stopped branch.
    """
    stop = time.monotonic() + HELLO_TIMEOUT_S
    while time.monotonic() < stop:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return
        except ChildProcessError:
            time.sleep(0.0005)
    raise Unresponsive("the session's process did not let its branch go")


def _is_process(pid: int) -> bool:
    """False for a thread other than its process's main thread."""
    try:
        os.close(os.pidfd_open(pid))
    except OSError:
        return False
    return True


def _sender(channel: socket.socket) -> int:
    """Process id of who wrote to `channel`, as the kernel knows it; 0 if nobody did."""
    size = struct.calcsize("3i")
    _, ancillary, _, _ = channel.recvmsg(64, socket.CMSG_SPACE(size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            return struct.unpack("3i", data[:size])[0]
    return 0
