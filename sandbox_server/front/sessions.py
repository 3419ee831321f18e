"""Sessions: state that lives between blocks, commits and rolls back. How many, how long, how large.

Names and life times; session_tree.py talks to the supervisors, which do the forks. Three bounds hold:
on the number of sessions, those being opened included; on the time that one may be idle; on the
memory that all hold between their blocks. What is over a bound ends idle sessions, never running ones.
"""

import asyncio
import collections
import contextlib
import dataclasses
import logging
import secrets
import time
from collections.abc import Coroutine

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front.engine import Engine
from sandbox_server.front.execution import BrokenChild, Outcome, job_limits
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.queue import QueueFull
from sandbox_server.front.session_tree import (
    OrderRefused,
    SessionLost,
    SessionTree,
    SupervisorError,
    run_block,
)
from sandbox_server.inside.session_limits import MAX_BRANCHES, TASK_ALLOWANCE

# Blocks add up in one process, and the front end's clock is per block. So that nothing spins for
# ever even where all that would end it has been killed.
_CPU_BACKSTOP_S = 4 * 3600
_EVICTION_TIMEOUT_S = 5.0
log = logging.getLogger("sandbox_server.sessions")


@dataclasses.dataclass(kw_only=True)
class Session:
    """One branch of a session tree under a name that clients know."""

    session_id: str
    tree: SessionTree
    branch: int
    idle_s: float
    last_used: float
    num_blocks: int = 0
    memory_bytes: int = 0  # held since its last block
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    @property
    def is_alive(self) -> bool:
        return not self.tree.is_closed and self.branch in self.tree.branches


@dataclasses.dataclass(frozen=True, kw_only=True)
class BlockRun:
    """One block that has run, and what became of its session."""

    outcome: Outcome
    queued_s: float
    is_rolled_back: bool
    is_evicted: bool  # ended afterwards, to make room


class Sessions:
    """All sessions of this server, least recently used first."""

    def __init__(self, config: ServerConfig, engine: Engine, server_id: str):
        self._config = config
        self._engine = engine
        self._server_id = server_id
        self._sessions: collections.OrderedDict[str, Session] = collections.OrderedDict()
        self._sweeper: asyncio.Task[None] | None = None
        self._openings = 0  # places of sessions that are being opened
        self._tasks: set[asyncio.Task] = set()
        self.evictions = 0

    @property
    def memory_bytes(self) -> int:
        """What all sessions hold between their blocks."""
        return sum(session.memory_bytes for session in self._sessions.values())

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        trees = {id(s.tree): s.tree for s in self._sessions.values()}
        for tree in trees.values():
            tree.close()
        self._sessions.clear()

    async def create(
        self, limits: LimitSet, seed: int, idle_s: float, *, has_checkpoints: bool = True
    ) -> Session:
        """A new session; the one idle for longest makes room, if one is idle."""
        return await self._finish(self._open(limits, seed, idle_s, has_checkpoints))

    async def _finish(self, opening: Coroutine[None, None, Session]) -> Session:
        """A session being opened. If nobody waits for it any more it is opened all the same, and ended.

        Or its place would be free before its processes are gone.
        """
        task = asyncio.create_task(opening)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(self._abandon)
            raise

    def _abandon(self, opened: asyncio.Task[Session]) -> None:
        if not opened.cancelled() and opened.exception() is None:
            task = asyncio.create_task(self._end(opened.result()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _open(
        self, limits: LimitSet, seed: int, idle_s: float, has_checkpoints: bool
    ) -> Session:
        async with self._place():
            settings = job_limits(limits, TASK_ALLOWANCE + self._engine.task_allowance())
            settings |= {"cpu_s": _CPU_BACKSTOP_S, "seed": seed}
            server = self._engine.pool.server_for_session()
            supervisor = await server.spawn_supervisor(settings)
            tree = SessionTree(
                supervisor, limits, server.private_bytes, has_checkpoints=has_checkpoints
            )
            try:
                await tree.ready()
            except (SupervisorError, SessionLost) as error:
                raise ForkServerGone(f"session: {error}") from error
            except BaseException:
                tree.close()
                raise
            return self._register(tree, 0, idle_s)

    @contextlib.asynccontextmanager
    async def _place(self):
        """A place among the sessions, held until the session is registered. Raises QueueFull."""
        # Taken before the first await: of many callers at once, each sees the places of the others.
        self._openings += 1
        try:
            while len(self) + self._openings > self._config.session_capacity:
                await self._evict(self._idle_longest())
            yield
        finally:
            self._openings -= 1

    def _idle(self) -> list[Session]:
        return [session for session in self._sessions.values() if not session.lock.locked()]

    def _idle_longest(self) -> Session:
        idle = self._idle()
        if not idle:
            raise QueueFull("all sessions are busy", 500)
        return idle[0]

    async def _evict(self, session: Session) -> None:
        self.evictions += 1
        await self._end(session)
        if session.tree.is_closed:  # its place is free when its processes are gone
            await asyncio.wait({session.tree.ended}, timeout=_EVICTION_TIMEOUT_S)

    async def _fit_memory(self) -> None:
        """Ends idle sessions, the largest first, until all fit the bound."""
        while self.memory_bytes > self._config.session_memory_bytes and (idle := self._idle()):
            largest = max(idle, key=lambda session: session.memory_bytes)
            log.info("session evicted for memory", extra={"bytes": largest.memory_bytes})
            await self._evict(largest)

    def _register(self, tree: SessionTree, branch: int, idle_s: float) -> Session:
        session = Session(
            session_id=f"{self._server_id}-{secrets.token_hex(8)}",
            tree=tree,
            branch=branch,
            idle_s=min(idle_s or self._config.session_idle_s, self._config.session_idle_s),
            last_used=time.monotonic(),
        )
        self._sessions[session.session_id] = session
        return session

    def find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None or not session.is_alive:
            raise SessionLost(f"no session {session_id[:64]!r} on this server")
        session.last_used = time.monotonic()
        self._sessions.move_to_end(session_id)
        return session

    async def fork(self, session_id: str) -> Session:
        """A branch of a session: a session of its own with the same state."""
        return await self._finish(self._open_branch(self.find(session_id)))

    async def _open_branch(self, session: Session) -> Session:
        async with session.lock, self._place():  # in this order: it does not make room for itself
            if len(session.tree.branches) >= MAX_BRANCHES:
                raise QueueFull(f"a session tree has at most {MAX_BRANCHES} branches", 500)
            try:
                branch = await session.tree.fork(session.branch)
            except OrderRefused as error:
                raise SessionLost(f"the session ended: {error}") from error
            except SupervisorError as error:
                raise await self._broken(session, error) from error
            new = self._register(session.tree, branch, session.idle_s)
            new.memory_bytes = session.memory_bytes
        await self._fit_memory()
        return new

    async def close(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        if session is None:
            return False
        await self._end(session)
        return True

    async def _broken(self, session: Session, error: Exception) -> SessionLost:
        """Ends a session whose program broke the machinery in its process; its branches as well."""
        await self._end(session)
        session.tree.close()
        return SessionLost(f"the session broke: {error}")

    async def _end(self, session: Session) -> None:
        self._sessions.pop(session.session_id, None)
        await session.tree.drop(session.branch)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(0.5)
            now = time.monotonic()
            for session in list(self._sessions.values()):
                is_idle = now - session.last_used > session.idle_s and not session.lock.locked()
                if is_idle or not session.is_alive:
                    self.evictions += is_idle
                    await self._end(session)

    async def run(
        self, session_id: str, code: str, *, echo: bool, limits: LimitSet, client: str
    ) -> BlockRun:
        """Runs one block."""
        session = self.find(session_id)
        async with session.lock, self._engine.queue.admitted(client) as queued_s:
            if not session.is_alive:
                raise SessionLost("the session ended while this block waited")
            session.num_blocks += 1
            job = {
                "code": code,
                "echo": echo,
                "block": session.num_blocks,
                "value_chars": limits.output_bytes,
            }
            try:
                outcome, is_rolled_back = await run_block(
                    session.tree, session.branch, job, limits, self._config.flood_bytes
                )
            except OrderRefused as error:
                await self._end(session)
                raise SessionLost(f"the session ended: {error}") from error
            except (SupervisorError, BrokenChild) as error:
                raise await self._broken(session, error) from error
            finally:
                session.last_used = time.monotonic()
                session.memory_bytes = session.tree.memory_bytes(session.branch)
            was_alive = session.is_alive
            if not was_alive:
                await self._end(session)
        await self._fit_memory()
        return BlockRun(
            outcome=outcome,
            queued_s=queued_s,
            is_rolled_back=is_rolled_back,
            is_evicted=was_alive and session_id not in self._sessions,
        )
