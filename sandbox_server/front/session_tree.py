"""The front end's end of one session tree: orders to its supervisor, and blocks run through it.

A session tree is one supervisor process (inside/session_supervisor.py, which orders the forks) and
its branches. Who may call, and when sessions end, is the business of sessions.py.
"""

import asyncio
import json
import os
import socket
from collections.abc import Callable

from sandbox_server.config import LimitSet
from sandbox_server.front import session_memory
from sandbox_server.front.execution import Outcome, Run
from sandbox_server.front.fork_server import Child, Exit, make_child, real_pid

_REPLY_TIMEOUT_S = 15.0
_END_TIMEOUT_S = 1.0  # for the supervisor to end its processes and itself; then it is killed
_BLOCK_GRACE_S = 30.0  # beyond its wall limit, which is enforced elsewhere


class SessionLost(Exception):
    """No such session here: never was, expired, evicted, or broken."""


class SupervisorError(Exception):
    """The supervisor could not carry an order out; it ends the session."""


class OrderRefused(Exception):
    """The supervisor did nothing: no room for a branch, or the branch has just died."""


class SessionTree:
    """One supervisor process and the branches (sessions) that it holds."""

    def __init__(
        self,
        supervisor: Child,
        limits: LimitSet,
        private_bytes: Callable[[int], int],
        *,
        has_checkpoints: bool,
    ):
        self._loop = asyncio.get_running_loop()
        self._supervisor = supervisor
        self._private_bytes = private_bytes
        self.limits = limits
        self.has_checkpoints = has_checkpoints
        self.lock = asyncio.Lock()  # one order at a time; blocks of branches run side by side
        self.branches: set[int] = {0}
        self._next_branch = 1
        self._next_order = 1
        self._replies: dict[int, asyncio.Future[list[int]]] = {0: self._loop.create_future()}
        self._blocks: dict[int, asyncio.Future[tuple[Exit, bool]]] = {}
        self.is_closed = False
        self.pids: dict[int, int] = {}  # of session processes at rest, by branch
        self._scratch = -1
        self._warm_bytes = 0
        self._loop.add_reader(supervisor.control.fileno(), self._on_message)
        supervisor.ended.add_done_callback(self._on_end)

    @property
    def uid_index(self) -> int:
        return self._supervisor.uid_index

    @property
    def pid(self) -> int:
        """Of the supervisor."""
        return self._supervisor.pid

    @property
    def ended(self) -> asyncio.Future[Exit]:
        return self._supervisor.ended

    async def ready(self) -> None:
        """Waits until the first session process is locked and stopped."""
        first, *scratch = await self._reply_to(0)
        if self.is_closed:  # since the reply came: nobody would close them any more
            for fd in (first, *scratch):
                os.close(fd)
            raise SessionLost("the session has ended")
        self._scratch = scratch[0] if scratch else -1
        self.pids[0] = real_pid(first)
        os.close(first)
        self._warm_bytes = session_memory.anonymous_bytes(self.pids[0])

    def memory_bytes(self, branch: int) -> int:
        """What a branch at rest holds, its share of the tree's files included."""
        own = session_memory.anonymous_bytes(self.pids.get(branch, 0)) - self._warm_bytes
        return max(0, own) + session_memory.used_bytes(self._scratch) // max(1, len(self.branches))

    async def _reply_to(self, name: int) -> list[int]:
        try:
            async with asyncio.timeout(_REPLY_TIMEOUT_S):
                return await self._replies[name]
        except TimeoutError:
            raise SupervisorError("the supervisor does not answer") from None
        finally:
            self._replies.pop(name, None)

    async def order(self, order: dict, fds: list[int] | None = None) -> list[int]:
        """Sends an order; descriptors of the reply."""
        if self.is_closed:
            raise SessionLost("the session has ended")
        name = self._next_order
        self._next_order += 1
        self._replies[name] = self._loop.create_future()
        message = json.dumps(order | {"id": name}).encode()
        try:
            socket.send_fds(self._supervisor.control, [message], fds or [])
        except OSError as error:
            self.close()
            raise SessionLost(f"the session's supervisor is gone: {error}") from None
        return await self._reply_to(name)

    async def start_block(self, branch: int, fds: list[int]) -> tuple[int, int]:
        """Hands the pipes over: pidfds of the session process and of its checkpoint, or -1."""
        self._blocks[branch] = self._loop.create_future()
        order = {"op": "block", "branch": branch, "checkpoint": self.has_checkpoints}
        async with self.lock:
            process, *checkpoint = await self.order(order, fds)
        return process, checkpoint[0] if checkpoint else -1

    def block_end(self, branch: int) -> asyncio.Future[tuple[Exit, bool]]:
        """Exit of the session process, if it dies, and whether the state was rolled back."""
        return self._blocks[branch]

    async def commit(self, branch: int) -> None:
        async with self.lock:
            await self.order({"op": "commit", "branch": branch})

    async def fork(self, branch: int) -> int:
        new = self._next_branch
        self._next_branch += 1
        self.branches.add(new)  # at once: its place is taken
        try:
            async with self.lock:
                await self.order({"op": "branch", "branch": branch, "new": new})
        except BaseException:
            self.branches.discard(new)
            raise
        self.pids[new] = self.pids.get(branch, 0)  # the same pages; its own from its first block on
        return new

    async def drop(self, branch: int) -> None:
        """Ends one branch; the supervisor ends with its last one."""
        self.branches.discard(branch)
        self.pids.pop(branch, None)
        if not self.branches:
            return self.close()
        try:
            async with self.lock:
                await self.order({"op": "drop", "branch": branch})
        except OrderRefused:  # it has died
            return
        except (SessionLost, SupervisorError):  # or the branch would go on
            self.close()

    def close(self) -> None:
        """Has the supervisor end all its processes and itself; kills it if it takes too long."""
        if self.is_closed:
            return
        self.is_closed = True
        if not self._supervisor.ended.done():
            self._loop.call_later(_END_TIMEOUT_S, self._supervisor.kill)
        if self._scratch >= 0:
            os.close(self._scratch)
            self._scratch = -1
        self._loop.remove_reader(self._supervisor.control.fileno())
        error = SessionLost("the session has ended")
        for future in (*self._replies.values(), *self._blocks.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._supervisor.control.close()  # the supervisor kills its processes and ends

    def _on_end(self, end: asyncio.Future[Exit]) -> None:
        self.close()
        if end.exception() is None:
            self._supervisor.close()
        else:  # only the fork server is known to be gone: the supervisor still has its second
            self._loop.call_later(_END_TIMEOUT_S, self._supervisor.close)

    def _on_message(self) -> None:
        while not self.is_closed:
            try:
                data, fds, _, _ = socket.recv_fds(self._supervisor.control, 4096, 4)
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
            if block is not None and not block.done():
                block.set_result((end, message["rolled_back"]))
            if not message["rolled_back"]:
                self.branches.discard(message["branch"])
                if not self.branches:
                    self.close()
            return
        reply = self._replies.get(message["id"])
        if reply is None or reply.done():
            for fd in fds:
                os.close(fd)
        elif message["op"] in ("failed", "refused"):
            kind = SupervisorError if message["op"] == "failed" else OrderRefused
            reply.set_exception(kind(message["why"]))
        else:
            reply.set_result(fds)


async def run_block(
    tree: SessionTree, branch: int, job: dict, limits: LimitSet, flood_bytes: int
) -> tuple[Outcome, bool]:
    """Outcome, and whether the state was rolled back. Cancelling kills the block.

    Even then it returns only when the branch has settled, so that the next block finds a state.
    """
    cancelled = asyncio.get_running_loop().create_future()
    block = asyncio.create_task(_run(tree, branch, job, limits, flood_bytes, cancelled))
    try:
        return await asyncio.shield(block)
    except asyncio.CancelledError:
        cancelled.set_result(None)
        await asyncio.wait({block})
        block.exception()  # nobody else will look
        raise


async def _run(
    tree: SessionTree,
    branch: int,
    job: dict,
    limits: LimitSet,
    flood_bytes: int,
    cancelled: asyncio.Future[None],
) -> tuple[Outcome, bool]:
    # 1. To its watcher (Run) the session process is a child like any other. Only `ended` is never
    #    set: the supervisor reaps it and says "died".
    process, far_ends, closing = make_child(tree.uid_index, socket.SOCK_STREAM)
    checkpoint = -1
    run = Run(process, limits, flood_bytes, is_session_block=True)
    try:
        # 2. Afterwards the process waits for its job. Threads that earlier blocks left run again.
        with closing:
            process.pidfd, checkpoint = await tree.start_block(branch, far_ends)
        process.pid = real_pid(process.pidfd)
        death = tree.block_end(branch)
        run.begin(job)
        ends: set[asyncio.Future] = {death, run.spoke, cancelled}
        longest_s = limits.wall_ms / 1000 + _BLOCK_GRACE_S
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED, timeout=longest_s)
        # 3. It died, said that it is done, or nobody waits for it. In the last case, and where its
        #    report admits a broken limit, its state must go: by its death.
        has_spoken = run.spoke.done()
        if not death.done() and (cancelled.done() or run.must_not_commit or not has_spoken):
            process.kill()
            await asyncio.wait({death}, timeout=_REPLY_TIMEOUT_S)
            if not death.done():
                raise SupervisorError("the session's process does not end")
        # 4. It ended by itself: the process is stopped and the checkpoint killed. It may still die
        #    between its last word and the commit.
        if not death.done():
            try:
                await tree.commit(branch)
            except OrderRefused as error:
                if not death.done():
                    raise SupervisorError(str(error)) from error
        if death.done():
            end, is_rolled_back = death.result()
            tree.pids[branch] = real_pid(checkpoint) if is_rolled_back else 0
            return run.outcome(end), is_rolled_back
        tree.pids[branch] = process.pid
        outcome = run.outcome(None)
        os.close(process.pidfd)
        process.pidfd = -1  # so that closing does not kill what has committed
        return outcome, False
    finally:
        run.end()
        process.close()
        if checkpoint >= 0:
            os.close(checkpoint)
