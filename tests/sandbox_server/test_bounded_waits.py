"""Whoever does not answer is not waited for without a bound: a fork server, a supervisor, a program."""

import asyncio
import os
import signal
import socket
import subprocess
import sys

import pytest

from sandbox_server.config import LimitSet
from sandbox_server.front import execution, fork_server, session_tree
from sandbox_server.inside import session_forks
from sandbox_server.inside.lockdown import Tier

_SOON_S = 0.05


class _Silent:
    """A fork server that takes orders and says nothing; its process is a `sleep`."""

    def __init__(self):
        self.uids = fork_server.UidIndexes(4)
        self.server = fork_server.ForkServer(Tier.NONE, 1 << 20, False, self.uids)
        ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self.server._channel = ours
        self.server.gone = asyncio.get_running_loop().create_future()
        self.server._process = subprocess.Popen(["sleep", "600"])


def test_a_fork_server_that_does_not_answer_is_killed_and_gives_the_user_id_back(monkeypatch):
    monkeypatch.setattr(fork_server, "_FORK_TIMEOUT_S", _SOON_S)

    async def run() -> None:
        silent = _Silent()
        with pytest.raises(fork_server.ForkServerGone, match="did not answer"):
            await silent.server.spawn()
        assert not silent.server.is_alive
        assert silent.server._process is not None
        assert silent.server._process.poll() is not None
        await asyncio.sleep(0)
        assert len(silent.uids) == 3
        silent.theirs.close()

    asyncio.run(run())


def test_whoever_leaves_before_the_fork_keeps_the_user_id_until_the_end_is_known():
    async def run() -> None:
        silent = _Silent()
        task = asyncio.create_task(silent.server.spawn())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(silent.uids) == 2
        silent.server.stop()
        await asyncio.sleep(0)
        assert len(silent.uids) == 3
        silent.theirs.close()

    asyncio.run(run())


def _supervisor(process: subprocess.Popen):
    """A child handle whose process is `process`; the far end of its control socket."""
    child, far_ends, closing = fork_server.make_child(1, socket.SOCK_SEQPACKET)
    far = socket.socket(fileno=os.dup(far_ends[2]))
    closing.close()
    child.pidfd = os.pidfd_open(process.pid)
    return child, far


@pytest.fixture
def sleeper():
    process = subprocess.Popen(["sleep", "600"])
    yield process
    process.kill()
    process.wait()


def test_a_supervisor_that_does_not_answer_is_killed(monkeypatch, sleeper):
    monkeypatch.setattr(session_tree, "_REPLY_TIMEOUT_S", _SOON_S)
    monkeypatch.setattr(session_tree, "_END_TIMEOUT_S", _SOON_S)

    async def run() -> None:
        child, far = _supervisor(sleeper)
        tree = session_tree.SessionTree(child, LimitSet(), lambda kib: kib, has_checkpoints=True)
        with pytest.raises(session_tree.SupervisorError, match="does not answer"):
            await tree.ready()
        with pytest.raises(session_tree.SupervisorError, match="does not answer"):
            await tree.fork(0)
        assert tree.branches == {0}
        tree.close()
        assert await asyncio.to_thread(sleeper.wait, 10) == -signal.SIGKILL
        far.close()

    asyncio.run(run())


def test_a_block_whose_end_is_never_told_breaks_its_session(monkeypatch, sleeper):
    for name in ("_REPLY_TIMEOUT_S", "_BLOCK_GRACE_S"):
        monkeypatch.setattr(session_tree, name, _SOON_S)
    block = subprocess.Popen(["sleep", "600"])

    async def start(self, branch: int, fds: list[int]) -> tuple[int, int]:
        self._blocks[branch] = asyncio.get_running_loop().create_future()
        os.write(fds[2], b"\n")  # it has begun
        return os.pidfd_open(block.pid), -1

    monkeypatch.setattr(session_tree.SessionTree, "start_block", start)

    async def run() -> None:
        child, far = _supervisor(sleeper)
        tree = session_tree.SessionTree(child, LimitSet(), lambda kib: kib, has_checkpoints=True)
        limits = LimitSet(wall_ms=30)
        with pytest.raises(session_tree.SupervisorError, match="does not end"):
            await session_tree.run_block(tree, 0, {"code": ""}, limits, 1 << 20)
        far.close()

    asyncio.run(run())
    assert block.wait(10) == -signal.SIGKILL


def test_a_run_whose_end_is_never_told_is_the_servers_fault(monkeypatch, sleeper):
    for name in ("_BIRTH_TIMEOUT_S", "_GRACE_S"):
        monkeypatch.setattr(execution, name, _SOON_S)

    async def run() -> None:
        child, far = _supervisor(sleeper)
        with pytest.raises(fork_server.ForkServerGone, match="no news"):
            await execution.run_once(child, {"code": ""}, LimitSet(wall_ms=10), 1 << 20)
        far.close()

    asyncio.run(run())


def test_a_program_that_does_not_say_hello_is_not_waited_for(monkeypatch, sleeper):
    monkeypatch.setattr(session_forks, "HELLO_TIMEOUT_S", _SOON_S)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    source = session_forks.Process(pid=sleeper.pid, channel=ours)
    with pytest.raises(session_forks.Unresponsive, match="does not answer"):
        session_forks.ForkGate(-1).fork(source, [], order="block", known=frozenset({sleeper.pid}))
    theirs.close()
    ours.close()


_ORPHANS = """
import os, time
from sandbox_server.inside import descendants, linux
linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
kept = os.fork() or time.sleep(60)
if os.fork() == 0:  # a tree of four, its top gone
    os.fork() and os.fork() and os._exit(0)
    os.fork()
    time.sleep(60)
while len(descendants.children()) < 2:
    pass
assert descendants.end({kept}, within_s=20)
assert descendants.children() == {kept}
assert descendants.end(within_s=20)
assert descendants.children() == set()
print("none left")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="subreapers are Linux's")
def test_all_that_is_inherited_is_ended_and_the_spared_is_not():
    done = subprocess.run(
        [sys.executable, "-c", _ORPHANS], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "none left\n", done.stderr
