"""The supervisor of one session: holds no state of the program, decides who may fork and who runs.

A session is a chain of processes that have run the user's blocks. The one that holds the present
state is the session process. Before a block it forks a checkpoint, which is stopped; then it runs
the block. If the block ends well the checkpoint is killed, otherwise the checkpoint becomes the
session process. A session may do without checkpoints: then it ends when its process dies. Between
blocks the session process is stopped, so that threads left behind cost nothing.

A session tree has several branches, each with its session process. One supervisor serves them all.

User code cannot fork except on this process's order (session_forks.py), so every process of the
session is known here. Where one does not do as ordered the session ends. The end is of all below this
process, known or not: in the namespace tier it is process 1 of a pid namespace of the session, and
the kernel ends what is in there; elsewhere it inherits what is below it and kills that. Nothing here
waits without a bound.

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
import json
import os
import select
import signal
import socket

from sandbox_server.inside import descendants, linux, lockdown, session_process
from sandbox_server.inside.lockdown import Tier
from sandbox_server.inside.session_forks import ForkGate, Process, Unresponsive, await_adoption
from sandbox_server.inside.session_limits import MAX_BRANCHES

_SEND_TIMEOUT_S = 10.0  # to a front end that does not read
_START_TIMEOUT_S = 14.0  # of the first process; the front end waits a little longer
_END_TIMEOUT_S = 5.0


@dataclasses.dataclass(kw_only=True)
class Branch:
    """One line of states: its session process, and the checkpoint while a block runs."""

    process: Process
    checkpoint: Process | None = None


class _Refused(Exception):
    """An order that cannot be carried out; nothing has been done."""


class SessionSupervisor:
    """Event loop over the front end's socket and the notification descriptor."""

    def __init__(self, front: socket.socket, first: Process, listener: int):
        self._front = front
        self._listener = listener
        self._branches = {0: Branch(process=first)}
        self._gate = ForkGate(listener, front)
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
        self._wake, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._poller.register(self._wake, select.POLLIN)

    def serve(self) -> None:
        """Until the front end closes its socket, or a session process breaks an order."""
        while True:
            for fd, _ in self._poller.poll():
                if fd == self._listener:
                    self._gate.decide()
                elif fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 512)
                    self._reap()
                elif not self._obey():
                    return

    def _say(self, message: dict, fds: list[int] | None = None) -> None:
        socket.send_fds(self._front, [json.dumps(message).encode()], fds or [])

    def _obey(self) -> bool:
        """Carries out one order. False if the session ends now."""
        data, fds, _, _ = socket.recv_fds(self._front, 4096, 8)
        if not data:
            return False
        order = json.loads(data)
        try:
            self._verbs[order["op"]](order, fds)
        except _Refused as error:
            self._say({"op": "refused", "id": order["id"], "why": str(error)})
        except (Unresponsive, OSError) as error:
            self._say({"op": "failed", "id": order["id"], "why": str(error)})
            return False
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _known(self) -> frozenset[int]:
        """Process ids of the whole session."""
        pairs = ((branch.process, branch.checkpoint) for branch in self._branches.values())
        return frozenset(one.pid for pair in pairs for one in pair if one is not None)

    def _branch(self, order: dict) -> Branch:
        branch = self._branches.get(order["branch"])
        if branch is None:
            raise _Refused("the session's process has died")
        return branch

    def _on_block(self, order: dict, fds: list[int]) -> None:
        """Checkpoint if so ordered, then let the session process run with the block's pipes."""
        branch = self._branch(order)
        processes = [branch.process]
        is_running = False
        try:
            if order["checkpoint"]:
                # The source runs the block as soon as it has forked; only the copy is stopped.
                branch.checkpoint = self._gate.fork(
                    branch.process, fds, order="block", known=self._known()
                )
                branch.checkpoint.signal(signal.SIGSTOP)
                processes.append(branch.checkpoint)
            else:
                branch.process.signal(signal.SIGCONT)
                socket.send_fds(branch.process.channel, [session_process.RUN], fds)
            # The front end watches and kills by pidfd: a number could be another process by then.
            pidfds = [os.pidfd_open(process.pid) for process in processes]
            is_running = True
        finally:
            if not is_running:
                branch.process.signal(signal.SIGSTOP)
        self._say({"op": "forked", "id": order["id"]}, pidfds)
        for fd in pidfds:
            os.close(fd)

    def _on_commit(self, order: dict, _fds: list[int]) -> None:
        branch = self._branch(order)
        branch.process.signal(signal.SIGSTOP)
        self._drop(branch.checkpoint)
        branch.checkpoint = None
        self._say({"op": "done", "id": order["id"]})

    def _on_branch(self, order: dict, fds: list[int]) -> None:
        if len(self._branches) >= MAX_BRANCHES:
            raise _Refused(f"a session has at most {MAX_BRANCHES} branches")
        source = self._branch(order).process
        try:
            copy = self._gate.fork(source, fds, order="branch", known=self._known())
            await_adoption(copy)
            copy.signal(signal.SIGSTOP)
        finally:
            source.signal(signal.SIGSTOP)
        self._branches[order["new"]] = Branch(process=copy)
        self._say({"op": "done", "id": order["id"]})

    def _on_drop(self, order: dict, _fds: list[int]) -> None:
        branch = self._branch(order)
        del self._branches[order["branch"]]
        self._drop(branch.process)
        self._drop(branch.checkpoint)
        self._say({"op": "done", "id": order["id"]})

    def _drop(self, process: Process | None) -> None:
        if process is not None:
            process.signal(signal.SIGKILL)
            process.channel.close()

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


def _start_process(prison: lockdown.Prison, order: dict, scratch_bytes: int):
    """Forks the first session process: that process, the notification descriptor, and its /tmp."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(_START_TIMEOUT_S)
    pid = os.fork()
    if pid == 0:
        session_process.main(prison, order, theirs.fileno(), scratch_bytes)
    theirs.close()
    data, fds, _, _ = socket.recv_fds(ours, 4096, 2)
    if data != session_process.READY:
        raise RuntimeError(f"the session's first process failed: {data.decode('utf-8', 'replace')}")
    ours.send(b"go")
    listener, scratch = (*fds, -1, -1)[:2]
    return Process(pid=pid, channel=ours), listener, scratch


def _end(tier: Tier) -> None:
    """Ends this process and all below it, known or not."""
    if tier is Tier.NAMESPACE:
        os._exit(0)  # process 1 of its pid namespace: the kernel ends the others first
    is_done = descendants.end(within_s=_END_TIMEOUT_S)
    os._exit(0 if is_done else 1)  # what is left is inherited by the fork server, which goes on


def main(prison: lockdown.Prison, order: dict, fds: list[int], scratch_bytes: int) -> None:
    """Body of the forked session supervisor. `fds`: two unused pipes and the front end's socket."""
    front = socket.socket(fileno=os.dup(fds[2]))
    os.set_inheritable(front.fileno(), False)
    for fd in range(3, 256):
        if fd not in (front.fileno(), prison.ruleset):
            with contextlib.suppress(OSError):
                os.close(fd)
    if prison.tier is Tier.NAMESPACE:
        # Elsewhere it must live to end the others. The front end's socket tells it when to.
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGKILL)
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    front.settimeout(_SEND_TIMEOUT_S)
    try:
        first, listener, scratch = _start_process(prison, order, scratch_bytes)
        first.signal(signal.SIGSTOP)
        supervisor = SessionSupervisor(front, first, listener)
        told = [os.pidfd_open(first.pid), *([scratch] if scratch >= 0 else [])]
        socket.send_fds(front, [json.dumps({"op": "done", "id": 0}).encode()], told)
        for fd in told:
            os.close(fd)
        supervisor.serve()
    except (OSError, RuntimeError) as error:
        with contextlib.suppress(OSError):
            front.send(json.dumps({"op": "failed", "id": 0, "why": str(error)}).encode())
    finally:
        _end(prison.tier)
