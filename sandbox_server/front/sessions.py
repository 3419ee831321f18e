"""Sessions: state that lives between blocks, commits and rolls back. Idle and LRU eviction.

The front end's half; the keeper process (inside/keeper.py) does the forks.
"""

import asyncio
import collections
import contextlib
import dataclasses
import json
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable

from sandbox_server.config import LimitSet, ServerConfig
from sandbox_server.front.engine import Engine
from sandbox_server.front.execution import Outcome, Run, job_limits
from sandbox_server.front.fork_server import Child, Exit, ForkServerGone, make_pipe, real_pid
from sandbox_server.front.queue import QueueFull
from sandbox_server.inside.keeper import MAX_HEADS, TASK_ALLOWANCE

_ANSWER_TIMEOUT_S = 15.0
_NO_CPU_BACKSTOP_S = 1 << 24  # blocks add up in one process; the front end's clock is per block
log = logging.getLogger("sandbox_server.sessions")


class SessionLost(Exception):
    """No such session here: never was, expired, evicted, or broken."""


class KeeperError(Exception):
    """The keeper refused an order."""


class Family:
    """One keeper process and the branches (sessions) that it holds."""

    def __init__(self, keeper: Child, limits: LimitSet, private_bytes: Callable[[int], int]):
        self._loop = asyncio.get_running_loop()
        self._keeper = keeper
        self._private_bytes = private_bytes
        self.limits = limits
        self.lock = asyncio.Lock()  # one order at a time; blocks of branches run side by side
        self.branches: set[int] = {0}
        self._next_branch = 1
        self._next_order = 1
        self._answers: dict[int, asyncio.Future[list[int]]] = {0: self._loop.create_future()}
        self._blocks: dict[int, asyncio.Future[tuple[Exit, bool]]] = {}
        self.is_closed = False
        self._loop.add_reader(keeper.control.fileno(), self._on_message)

    @property
    def slot(self) -> int:
        return self._keeper.slot

    @property
    def ended(self) -> asyncio.Future[Exit]:
        return self._keeper.ended

    async def ready(self) -> None:
        await self._answer_to(0)

    async def _answer_to(self, name: int) -> list[int]:
        try:
            return await asyncio.wait_for(self._answers[name], _ANSWER_TIMEOUT_S)
        except TimeoutError:
            raise KeeperError("the keeper does not answer") from None
        finally:
            self._answers.pop(name, None)

    async def order(self, order: dict, fds: list[int] | None = None) -> list[int]:
        """Sends an order; descriptors of the answer."""
        if self.is_closed:
            raise SessionLost("the session has ended")
        name = self._next_order
        self._next_order += 1
        self._answers[name] = self._loop.create_future()
        message = json.dumps(order | {"id": name}).encode()
        try:
            socket.send_fds(self._keeper.control, [message], fds or [])
        except OSError as error:
            self.close()
            raise SessionLost(f"the session's keeper is gone: {error}") from None
        return await self._answer_to(name)

    async def start_block(self, branch: int, fds: list[int]) -> tuple[int, int]:
        """Checkpoints the branch and hands the pipes to its head: pidfds of head, checkpoint."""
        self._blocks[branch] = self._loop.create_future()
        async with self.lock:
            head, checkpoint = await self.order({"op": "block", "branch": branch}, fds)
        return head, checkpoint

    def block_end(self, branch: int) -> asyncio.Future[tuple[Exit, bool]]:
        """Exit of the head and whether it was rolled back, if the head dies."""
        return self._blocks[branch]

    async def commit(self, branch: int) -> None:
        async with self.lock:
            await self.order({"op": "commit", "branch": branch})

    async def fork(self, branch: int) -> int:
        new = self._next_branch
        self._next_branch += 1
        async with self.lock:
            await self.order({"op": "branch", "branch": branch, "new": new})
        self.branches.add(new)
        return new

    async def drop(self, branch: int) -> None:
        """Ends one branch; the keeper ends with its last one."""
        self.branches.discard(branch)
        if not self.branches:
            return self.close()
        with contextlib.suppress(SessionLost, KeeperError):
            async with self.lock:
                await self.order({"op": "drop", "branch": branch})

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._keeper.control.fileno())
        error = SessionLost("the session has ended")
        for future in (*self._answers.values(), *self._blocks.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._keeper.control.close()  # the keeper kills its processes and ends

    def _on_message(self) -> None:
        while not self.is_closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._keeper.control, 4096, 4)
            except BlockingIOError:
                return
            except OSError:
                data, fds = b"", []
            if not data:
                return self.close()
            self._take(json.loads(data), fds)

    def _take(self, message: dict, fds: list[int]) -> None:
        if message["op"] == "died":
            end = Exit(
                status=message["status"],
                cpu_ms=message["cpu_ms"],
                peak_bytes=self._private_bytes(message["peak_kib"]),
            )
            block = self._blocks.get(message["branch"])
            if not message["rolled_back"]:
                self.branches.discard(message["branch"])
            if block is not None and not block.done():
                block.set_result((end, message["rolled_back"]))
            return
        answer = self._answers.get(message["id"])
        if answer is None or answer.done():
            for fd in fds:
                os.close(fd)
        elif message["op"] == "failed":
            answer.set_exception(KeeperError(message["why"]))
        else:
            answer.set_result(fds)


@dataclasses.dataclass(kw_only=True)
class Session:
    """One branch of a family under a name that clients know."""

    session_id: str
    family: Family
    branch: int
    idle_s: float
    last_used: float
    num_blocks: int = 0
    lock: asyncio.Lock = dataclasses.field(default_factory=asyncio.Lock)

    @property
    def is_alive(self) -> bool:
        return not self.family.is_closed and self.branch in self.family.branches


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
        families = {id(s.family): s.family for s in self._sessions.values()}
        for family in families.values():
            family.close()
        self._sessions.clear()

    async def create(self, limits: LimitSet, seed: int, idle_s: float) -> Session:
        """A new session; the one idle for longest makes room, if one is idle."""
        await self._make_room()
        pool = self._engine.pool
        slot = pool.slots.take()
        settings = job_limits(limits, TASK_ALLOWANCE + self._engine.task_allowance())
        settings |= {"cpu_s": _NO_CPU_BACKSTOP_S, "seed": seed}
        try:
            server = pool.server_for_session()
            keeper = await server.spawn_keeper(slot, settings)
        except BaseException:
            pool.slots.give_back(slot)
            raise
        family = Family(keeper, limits, server.private_bytes)

        def _free(_: object) -> None:
            family.close()
            keeper.close()
            pool.slots.give_back(slot)

        keeper.ended.add_done_callback(_free)
        try:
            await family.ready()
        except BaseException as error:
            family.close()
            if isinstance(error, KeeperError):
                raise ForkServerGone(f"session: {error}") from error
            raise
        return self._register(family, 0, idle_s)

    def _register(self, family: Family, branch: int, idle_s: float) -> Session:
        session = Session(
            session_id=f"{self._server_id}-{secrets.token_hex(8)}",
            family=family,
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
        if len(session.family.branches) >= MAX_HEADS:
            raise QueueFull(f"a session family has at most {MAX_HEADS} branches", 500)
        async with session.lock:
            branch = await session.family.fork(session.branch)
        return self._register(session.family, branch, session.idle_s)

    async def close(self, session_id: str) -> bool:
        session = self._sessions.get(session_id)
        if session is None:
            return False
        await self._end(session)
        return True

    async def _end(self, session: Session) -> None:
        self._sessions.pop(session.session_id, None)
        await session.family.drop(session.branch)

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
                outcome, is_rolled_back = await _run_block(
                    session, job, limits, self._config.flood_bytes
                )
            except KeeperError as error:
                # The program broke the machinery in its own process: the session is over.
                await self._end(session)
                session.family.close()
                raise SessionLost(f"the session broke: {error}") from error
            finally:
                session.last_used = time.monotonic()
            return outcome, queued_s, is_rolled_back


async def _run_block(
    session: Session, job: dict, limits: LimitSet, flood_bytes: int
) -> tuple[Outcome, bool]:
    family, branch = session.family, session.branch
    stdout_read, stdout_write = make_pipe()
    stderr_read, stderr_write = make_pipe()
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    ended: asyncio.Future[Exit] = asyncio.get_running_loop().create_future()
    head = Child(
        slot=family.slot, stdout=stdout_read, stderr=stderr_read, control=ours, ended=ended
    )
    checkpoint = -1
    run = Run(head, limits, flood_bytes)
    try:
        try:
            pipes = [stdout_write, stderr_write, theirs.fileno()]
            head.pidfd, checkpoint = await family.start_block(branch, pipes)
        finally:
            os.close(stdout_write)
            os.close(stderr_write)
            theirs.close()
        head.pid = real_pid(head.pidfd)
        death = family.block_end(branch)
        run.begin(job)
        await asyncio.wait({death, run.spoke}, return_when=asyncio.FIRST_COMPLETED)
        if not death.done() and run.must_not_commit:
            head.kill()
            await asyncio.shield(death)
        if death.done():
            end, is_rolled_back = death.result()
            return run.outcome(end), is_rolled_back
        await family.commit(branch)
        if death.done():  # it died between its last word and the commit
            end, is_rolled_back = death.result()
            return run.outcome(end), is_rolled_back
        outcome = run.outcome(None)
        os.close(head.pidfd)
        head.pidfd = -1  # so that closing does not kill a committed head
        return outcome, False
    except SessionLost:
        if checkpoint >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(checkpoint, signal.SIGKILL)
        raise
    finally:
        run.end()
        head.close()
        if checkpoint >= 0:
            os.close(checkpoint)
