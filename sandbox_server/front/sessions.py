"""Sessions: state that lives between blocks, commits and rolls back. Idle and LRU eviction.

Names and life times; session_tree.py talks to the supervisors, which do the forks.
"""

import asyncio
import collections
import dataclasses
import logging
import secrets
import time

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front.engine import Engine
from sandbox_server.front.execution import BrokenChild, Outcome, job_limits
from sandbox_server.front.fork_server import ForkServerGone
from sandbox_server.front.queue import QueueFull
from sandbox_server.front.session_tree import SessionLost, SessionTree, SupervisorError, run_block
from sandbox_server.inside.session_limits import MAX_BRANCHES, TASK_ALLOWANCE

_NO_CPU_BACKSTOP_S = 1 << 24  # blocks add up in one process; the front end's clock is per block
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
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    @property
    def is_alive(self) -> bool:
        return not self.tree.is_closed and self.branch in self.tree.branches


class Sessions:
    """All sessions of this server, least recently used first."""

    def __init__(self, config: ServerConfig, engine: Engine, server_id: str):
        self._config = config
        self._engine = engine
        self._server_id = server_id
        self._sessions: collections.OrderedDict[str, Session] = collections.OrderedDict()
        self._sweeper: asyncio.Task[None] | None = None
        self.evictions = 0

    def __len__(self) -> int:
        return len(self._sessions)

    def start(self) -> None:
        self._sweeper = asyncio.create_task(self._sweep())

    async def stop(self) -> None:
        if self._sweeper is not None:
            self._sweeper.cancel()
        trees = {id(s.tree): s.tree for s in self._sessions.values()}
        for tree in trees.values():
            tree.close()
        self._sessions.clear()

    async def create(
        self, limits: LimitSet, seed: int, idle_s: float, *, has_checkpoints: bool = True
    ) -> Session:
        """A new session; the one idle for longest makes room, if one is idle."""
        await self._make_room()
        pool = self._engine.pool
        uid_index = pool.uid_indexes.take()
        settings = job_limits(limits, TASK_ALLOWANCE + self._engine.task_allowance())
        settings |= {"cpu_s": _NO_CPU_BACKSTOP_S, "seed": seed}
        try:
            server = pool.server_for_session()
            supervisor = await server.spawn_supervisor(uid_index, settings)
        except BaseException:
            pool.uid_indexes.give_back(uid_index)
            raise
        tree = SessionTree(
            supervisor, limits, server.private_bytes, has_checkpoints=has_checkpoints
        )

        def _free(_: object) -> None:
            tree.close()
            supervisor.close()
            pool.uid_indexes.give_back(uid_index)

        supervisor.ended.add_done_callback(_free)
        try:
            await tree.ready()
        except BaseException as error:
            tree.close()
            if isinstance(error, SupervisorError):
                raise ForkServerGone(f"session: {error}") from error
            raise
        return self._register(tree, 0, idle_s)

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

    async def _make_room(self) -> None:
        if len(self._sessions) < self._config.session_capacity:
            return
        for session in self._sessions.values():
            if not session.lock.locked():
                self.evictions += 1
                await self._end(session)
                return
        raise QueueFull("all sessions are busy", 500)

    def find(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None or not session.is_alive:
            self._sessions.pop(session_id, None)
            raise SessionLost(f"no session {session_id[:64]!r} on this server")
        session.last_used = time.monotonic()
        self._sessions.move_to_end(session_id)
        return session

    async def fork(self, session_id: str) -> Session:
        session = self.find(session_id)
        await self._make_room()
        if len(session.tree.branches) >= MAX_BRANCHES:
            raise QueueFull(f"a session tree has at most {MAX_BRANCHES} branches", 500)
        async with session.lock:
            try:
                branch = await session.tree.fork(session.branch)
            except SupervisorError as error:
                raise await self._broken(session, error) from error
        return self._register(session.tree, branch, session.idle_s)

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
    ) -> tuple[Outcome, float, bool]:
        """Runs one block: outcome, seconds in the queue, whether the state was rolled back."""
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
            except (SupervisorError, BrokenChild) as error:
                raise await self._broken(session, error) from error
            finally:
                session.last_used = time.monotonic()
            if not session.is_alive:
                await self._end(session)
            return outcome, queued_s, is_rolled_back
