"""The supervisor of one session: holds no state of the program, decides who may fork and who runs.

A session is a chain of processes that have run the user's blocks. The one that holds the present
state is the session process. Before a block it forks a checkpoint, which is stopped; then it runs
the block. If the block ends well the checkpoint is killed, otherwise the checkpoint becomes the
session process. A session may do without checkpoints: then it ends when its process dies. Between
blocks the session process is stopped, so that threads left behind cost nothing.

A session tree has several branches, each with its session process. One supervisor serves them all.

User code cannot fork: clone goes to this process (seccomp notification), which allows only the
forks that it has just ordered. Process ids come from the kernel (credentials on a socket), never
from what a session process says. In the namespace tier this process is process 1 of a pid namespace
of the session, so nothing outlives it.

One block with a checkpoint that breaks its CPU limit. Process 2 holds `x = 1`; the block is
`x = 2; os.fork()` in a try, then a loop:

  in:  front end    {"op": "block", "branch": 0, "checkpoint": true, "id": 7} and three pipes
  out: to 2         SIGCONT, then b"block", the pipes and a new channel; 2 may fork once
  in:  kernel       thread 2 calls clone, one permit left        out: may go on, no permit left
  in:  process 3    b"hello" on the new channel; the kernel says that 3 sent it
  out: to 3         SIGSTOP: it is the checkpoint and still has `x = 1`
  out: front end    {"op": "forked", "id": 7} and pidfds of 2 and 3; process 2 runs the block
  in:  kernel       thread 2 calls clone for os.fork()           out: EPERM, there is no permit
  in:  kernel       2 has died: the front end killed it for its CPU time
  out: to 3         SIGSTOP again, for the death of its parent has woken it
  out: front end    {"op": "died", "branch": 0, "status": 9, "rolled_back": true, ...}

Process 3 is the session process now. Had the block ended by itself, the front end would have sent
{"op": "commit", "branch": 0, "id": 8}: SIGSTOP to 2, SIGKILL to 3, {"op": "done", "id": 8}.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import select
import signal
import socket
import struct
import time

from sandbox_server.inside import linux, lockdown, session_process
from sandbox_server.inside.session_limits import MAX_BRANCHES

_NOTIF_RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_NOTIF_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
_CONTINUE = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE: the kernel carries the call out
_HELLO_TIMEOUT_S = 5.0


@dataclasses.dataclass(kw_only=True)
class Process:
    """A session process or a checkpoint: its id as the kernel told it, our end of its channel."""

    pid: int
    channel: socket.socket

    def signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)


@dataclasses.dataclass(kw_only=True)
class Branch:
    """One line of states: its session process, and the checkpoint while a block runs."""

    process: Process
    checkpoint: Process | None = None


class _Unresponsive(Exception):
    """A session process did not do as ordered."""


class SessionSupervisor:
    """Event loop over the front end's socket and the notification descriptor."""

    def __init__(self, front: socket.socket, first: Process, listener: int):
        self._front = front
        self._listener = listener
        self._branches = {0: Branch(process=first)}
        self._group = (
            first.pid
        )  # all below are in its process group: setpgid and setsid are refused
        self._permits = 0  # forks that the running order still allows
        self._permitted = 0  # process id of who was ordered to fork
        self._is_branching = False
        self._verbs = {
            "block": self._on_block,
            "commit": self._on_commit,
            "branch": self._on_branch,
            "drop": self._on_drop,
        }
        self._poller = select.poll()
        for fd in (front.fileno(), listener):
            if fd >= 0:
                self._poller.register(fd, select.POLLIN)
        self._calls = select.poll()
        if listener >= 0:
            self._calls.register(listener, select.POLLIN)
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poller.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        while True:
            for fd, _ in self._poller.poll():
                if fd == self._listener:
                    self._decide()
                elif fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 512)
                    self._reap()
                elif not self._obey():
                    return

    def kill_all(self) -> None:
        for branch in self._branches.values():
            for process in (branch.process, branch.checkpoint):
                if process is not None:
                    process.signal(signal.SIGKILL)
        # Also what a program has hidden from us: it becomes our child when its parent dies. While
        # a child of ours is in the group, dead or alive, its number is nobody else's.
        with contextlib.suppress(ChildProcessError, ProcessLookupError):
            while True:
                os.waitid(os.P_PGID, self._group, os.WEXITED | os.WNOHANG | os.WNOWAIT)
                os.killpg(self._group, signal.SIGKILL)
                os.wait()  # no zombies for the fork server

    def _say(self, message: dict, fds: list[int] | None = None) -> None:
        socket.send_fds(self._front, [json.dumps(message).encode()], fds or [])

    def _obey(self) -> bool:
        data, fds, _, _ = socket.recv_fds(self._front, 4096, 8)
        if not data:
            return False
        order = json.loads(data)
        try:
            self._verbs[order["op"]](order, fds)
        except (_Unresponsive, KeyError, OSError) as error:
            self._say({"op": "failed", "id": order.get("id", 0), "why": str(error)})
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _on_block(self, order: dict, fds: list[int]) -> None:
        """Checkpoint if so ordered, then let the session process run with the block's pipes."""
        branch = self._branches[order["branch"]]
        processes = [branch.process]
        if order["checkpoint"]:
            # The source runs the block as soon as it has forked; only the copy is stopped.
            branch.checkpoint = self._fork(branch.process, fds, order="block")
            branch.checkpoint.signal(signal.SIGSTOP)
            processes.append(branch.checkpoint)
        else:
            branch.process.signal(signal.SIGCONT)
            socket.send_fds(branch.process.channel, [session_process.RUN], fds)
        # The front end watches and kills by pidfd: a number could be another process by then.
        pidfds = [os.pidfd_open(process.pid) for process in processes]
        self._say({"op": "forked", "id": order["id"]}, pidfds)
        for fd in pidfds:
            os.close(fd)

    def _on_commit(self, order: dict, _fds: list[int]) -> None:
        branch = self._branches[order["branch"]]
        branch.process.signal(signal.SIGSTOP)
        self._drop(branch.checkpoint)
        branch.checkpoint = None
        self._say({"op": "done", "id": order["id"]})

    def _on_branch(self, order: dict, fds: list[int]) -> None:
        if len(self._branches) >= MAX_BRANCHES:
            raise _Unresponsive(f"a session has at most {MAX_BRANCHES} branches")
        source = self._branches[order["branch"]].process
        copy = self._fork(source, fds, order="branch")
        _await_adoption(copy)
        for process in (copy, source):
            process.signal(signal.SIGSTOP)
        self._branches[order["new"]] = Branch(process=copy)
        self._say({"op": "done", "id": order["id"]})

    def _on_drop(self, order: dict, _fds: list[int]) -> None:
        branch = self._branches.pop(order["branch"])
        self._drop(branch.process)
        self._drop(branch.checkpoint)
        self._say({"op": "done", "id": order["id"]})

    def _drop(self, process: Process | None) -> None:
        if process is not None:
            process.signal(signal.SIGKILL)
            process.channel.close()

    def _fork(self, source: Process, fds: list[int], *, order: str) -> Process:
        """Orders `source` to fork; the new process, known by its pid. Raises _Unresponsive."""
        # 1. A channel for the new process. On it the kernel attaches the sender's process id.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        # 2. Permits before the order, for the clone may come at once. A branch forks twice.
        self._is_branching = order == "branch"
        self._permits, self._permitted = (2 if self._is_branching else 1), source.pid
        # 3. The order. The source has been stopped since its last block: its threads wake as well.
        source.signal(signal.SIGCONT)
        with theirs:
            socket.send_fds(source.channel, [order.encode()], [theirs.fileno(), *fds])
        poller = select.poll()
        poller.register(ours, select.POLLIN)
        if self._listener >= 0:
            poller.register(self._listener, select.POLLIN)
        stop = time.monotonic() + _HELLO_TIMEOUT_S
        try:
            # 4. Until the new process says hello, calls are decided here: the source hangs in its
            #    clone until it is answered, and the main loop does not run meanwhile.
            while True:
                left_ms = round((stop - time.monotonic()) * 1000)
                events = poller.poll(left_ms) if left_ms > 0 else []
                if not events:
                    raise _Unresponsive("the session's process does not answer")
                for fd, _ in events:
                    if fd == self._listener:
                        self._decide()
                    else:
                        return Process(pid=_sender(ours, source.pid), channel=ours)
        except BaseException:
            ours.close()
            raise
        finally:
            # 5. From here on a clone is the program's wish, not ours.
            self._permits = 0

    def _decide(self) -> None:
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
        if nr == linux.number("clone", linux.MACHINE):
            # 3. A fork (the filter lets threads through): while an order holds permits, by the one
            #    who got the order. The second fork of a branch comes from the copy between source
            #    and branch, whose id nobody knows yet: a process, but none of ours.
            is_copy = self._is_branching and _is_process(pid) and pid not in self._session_pids()
            may = self._permits > 0 and (pid == self._permitted or is_copy)
            self._permits -= may
        else:
            # 4. kill and tgkill: to the calling process itself, the low half of the first argument.
            may = first & 0xFFFFFFFF == pid
        # 5. struct seccomp_notif_resp: id, value, error, flags. The kernel does the call, or EPERM.
        #    The registers that were judged are those it uses: nobody can change them meanwhile.
        response = struct.pack("=QqiI", name, 0, 0 if may else -1, _CONTINUE if may else 0)
        with contextlib.suppress(OSError):  # killed while it waited
            fcntl.ioctl(self._listener, _NOTIF_SEND, response)

    def _session_pids(self) -> set[int]:
        return {branch.process.pid for branch in self._branches.values()}

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for name, branch in list(self._branches.items()):
                if branch.process.pid == pid:
                    self._on_death(name, branch, status, usage)

    def _on_death(self, name: int, branch: Branch, status: int, usage) -> None:
        """A session process has ended: rolls back to the checkpoint, if there is one."""
        branch.process.channel.close()
        if branch.checkpoint is None:  # between blocks, or in a session without checkpoints
            del self._branches[name]
        else:
            branch.process, branch.checkpoint = branch.checkpoint, None
            branch.process.signal(signal.SIGSTOP)  # its parent's death has continued it
        cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000)
        self._say(
            {
                "op": "died",
                "branch": name,
                "status": status,
                "cpu_ms": cpu_ms,
                "peak_kib": usage.ru_maxrss,
                "rolled_back": name in self._branches,
            }
        )


def _is_process(pid: int) -> bool:
    """False for a thread other than its process's main thread."""
    try:
        os.close(os.pidfd_open(pid))
    except OSError:
        return False
    return True


def _await_adoption(process: Process) -> None:
    """Waits until `process` is this process's child, so that its death is told here.

    A branch is a grandchild of its source; until the copy between them has ended, the copy would
    get the news, and the end of the copy would continue the stopped branch.
    """
    stop = time.monotonic() + _HELLO_TIMEOUT_S
    while time.monotonic() < stop:
        try:
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return
        except ChildProcessError:
            time.sleep(0.0005)
    process.signal(signal.SIGKILL)
    process.channel.close()
    raise _Unresponsive("the session's process did not let its branch go")


def _sender(channel: socket.socket, parent: int) -> int:
    """Process id of who wrote to `channel`, as the kernel knows it."""
    size = struct.calcsize("3i")
    _, ancillary, _, _ = channel.recvmsg(64, socket.CMSG_SPACE(size))
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_CREDENTIALS:
            pid = struct.unpack("3i", data[:size])[0]
            if pid not in (0, parent):
                return pid
    raise _Unresponsive("the session's process broke the protocol")


def _start_process(prison: lockdown.Prison, order: dict, scratch_bytes: int) -> tuple[Process, int]:
    """Forks the first session process; that process and the notification descriptor."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        session_process.main(prison, order, theirs.fileno(), scratch_bytes)
    theirs.close()
    data, fds, _, _ = socket.recv_fds(ours, 4096, 1)
    if data != session_process.READY:
        raise RuntimeError(f"the session's first process failed: {data.decode('utf-8', 'replace')}")
    ours.send(b"go")
    return Process(pid=pid, channel=ours), fds[0] if fds else -1


def main(prison: lockdown.Prison, order: dict, fds: list[int], scratch_bytes: int) -> None:
    """Body of the forked session supervisor. `fds`: two unused pipes and the front end's socket."""
    front = socket.socket(fileno=os.dup(fds[2]))
    os.set_inheritable(front.fileno(), False)
    for fd in range(3, 256):
        if fd not in (front.fileno(), prison.ruleset):
            with contextlib.suppress(OSError):
                os.close(fd)
    linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    try:
        first, listener = _start_process(prison, order, scratch_bytes)
    except (OSError, RuntimeError) as error:
        front.send(json.dumps({"op": "failed", "id": 0, "why": str(error)}).encode())
        os._exit(1)
    first.signal(signal.SIGSTOP)
    supervisor = SessionSupervisor(front, first, listener)
    front.send(json.dumps({"op": "done", "id": 0}).encode())
    try:
        supervisor.serve()
    finally:
        supervisor.kill_all()
        os._exit(0)
