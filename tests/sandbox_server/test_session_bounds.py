"""How many sessions there may be, and how much memory they may hold: the rules, without processes."""

import asyncio
import os

import pytest

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front import session_memory, sessions
from sandbox_server.front.queue import QueueFull

_CAPACITY = 8


class _Supervisor:
    alive = 0
    most = 0

    def __init__(self):
        self.ended = asyncio.get_running_loop().create_future()
        _Supervisor.alive += 1
        _Supervisor.most = max(_Supervisor.most, _Supervisor.alive)

    def end(self) -> None:
        _Supervisor.alive -= 1
        self.ended.set_result(None)


class _Tree:
    """A session tree whose supervisor takes a moment to end."""

    def __init__(self, supervisor, limits, private_bytes, *, has_checkpoints):
        self.supervisor, self.limits = supervisor, limits
        self.branches, self.is_closed, self.sizes = {0}, False, {0: 0}

    @property
    def ended(self):
        return self.supervisor.ended

    async def ready(self) -> None:
        await asyncio.sleep(0.002)

    async def fork(self, branch: int) -> int:
        new = max(self.branches) + 1
        self.branches.add(new)
        await asyncio.sleep(0.002)
        return new

    async def drop(self, branch: int) -> None:
        self.branches.discard(branch)
        if not self.branches:
            self.close()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            asyncio.get_running_loop().call_later(0.002, self.supervisor.end)


class _Pool:
    facts = {"has_own_uids": True}  # noqa: RUF012
    tier = None

    def server_for_session(self):
        return self

    async def spawn_supervisor(self, settings: dict) -> _Supervisor:
        await asyncio.sleep(0.002)
        return _Supervisor()

    def private_bytes(self, kib: int) -> int:
        return kib * 1024


class _Engine:
    pool = _Pool()

    def task_allowance(self) -> int:
        return 0


@pytest.fixture
def kept(monkeypatch):
    monkeypatch.setattr(sessions, "SessionTree", _Tree)
    monkeypatch.setattr(_Supervisor, "alive", 0)
    monkeypatch.setattr(_Supervisor, "most", 0)
    config = ServerConfig(session_capacity=_CAPACITY, session_memory_bytes=1000)
    return sessions.Sessions(config, _Engine(), "server")  # pyright: ignore[reportArgumentType]


async def _create(kept: sessions.Sessions):
    return await kept.create(LimitSet(), 0, 60.0)


@pytest.mark.parametrize("cancelled", [0, 19])
def test_forty_at_once_hold_the_capacity(kept, cancelled):
    async def run() -> None:
        tasks = [asyncio.create_task(_create(kept)) for _ in range(40)]
        await asyncio.sleep(0.001)
        for task in tasks[:cancelled]:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        refused = [end for end in ends if isinstance(end, QueueFull)]
        made = [end for end in ends if isinstance(end, sessions.Session)]
        assert len(made) + len(refused) + cancelled >= 40
        assert _Supervisor.most <= _CAPACITY
        while len(kept) != _Supervisor.alive or kept._tasks:  # what was cancelled is being ended
            await asyncio.sleep(0.002)
        assert len(kept) <= _CAPACITY
        assert all(session.is_alive for session in kept._sessions.values())

    asyncio.run(run())


def test_one_after_the_other_the_idle_longest_makes_room_and_is_gone_before(kept):
    async def run() -> None:
        names = [(await _create(kept)).session_id for _ in range(3 * _CAPACITY)]
        assert list(kept._sessions) == names[-_CAPACITY:]
        assert _Supervisor.most == _CAPACITY
        assert kept.evictions == 2 * _CAPACITY

    asyncio.run(run())


def test_forks_take_places_and_never_their_own_source(kept):
    async def run() -> None:
        first = await _create(kept)
        others = [await _create(kept) for _ in range(_CAPACITY - 1)]
        branches = [asyncio.create_task(kept.fork(first.session_id)) for _ in range(7)]
        await asyncio.gather(*branches)
        assert len(kept) == _CAPACITY
        assert first.session_id in kept._sessions
        assert not any(other.session_id in kept._sessions for other in others)

    asyncio.run(run())


def test_a_cancelled_fork_leaves_no_branch(kept):
    async def run() -> None:
        first = await _create(kept)
        task = asyncio.create_task(kept.fork(first.session_id))
        await asyncio.sleep(0.001)
        task.cancel()
        while kept._tasks or not task.done():
            await asyncio.sleep(0.002)
        assert first.tree.branches == {0}
        assert len(kept) == 1

    asyncio.run(run())


def test_sessions_over_the_memory_bound_are_evicted_the_largest_first(kept):
    async def run() -> None:
        small, large, busy, middle = [await _create(kept) for _ in range(4)]
        for session, size in ((small, 100), (large, 800), (busy, 900), (middle, 200)):
            session.memory_bytes = size
        async with busy.lock:
            await kept._fit_memory()
            # The busy one counts and stays; 1000 are left without the two largest of the others.
            assert set(kept._sessions) == {small.session_id, busy.session_id}

    asyncio.run(run())


def test_the_bounds_are_positive():
    with pytest.raises(ValueError, match="session_capacity=0 must be from 1 to"):
        ServerConfig(session_capacity=0)
    with pytest.raises(ValueError, match="session_memory_bytes=0 must be from 1 to"):
        ServerConfig(session_memory_bytes=0)


def test_memory_is_read_of_a_process_and_of_a_file_system(tmp_path):
    before = session_memory.anonymous_bytes(os.getpid())
    held = b"x" * (64 << 20)
    grown = session_memory.anonymous_bytes(os.getpid()) - before
    assert len(held) * 0.9 < grown < len(held) * 1.3
    assert session_memory.anonymous_bytes(1 << 30) == 0
    assert session_memory.used_bytes(-1) == 0
