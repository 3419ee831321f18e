"""The front end's end of one session tree: orders to its supervisor, and blocks run through it.

A session tree is one supervisor process (inside/session_supervisor.py, which orders the forks) and
its branches. Who may call, and when sessions end, is the business of sessions.py.
"""

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable

from sandbox_server.config import LimitSet
from sandbox_server.front.execution import Outcome, Run
from sandbox_server.front.fork_server import Child, Exit, make_child, real_pid

_REPLY_TIMEOUT_S = 15.0


class SessionLost(Exception):
    """No such session here: never was, expired, evicted, or broken."""


class SupervisorError(Exception):
    """The supervisor refused an order."""


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
        self._loop.add_reader(supervisor.control.fileno(), self._on_message)

    @property
    def uid_index(self) -> int:
        return self._supervisor.uid_index

    @property
    def ended(self) -> asyncio.Future[Exit]:
        return self._supervisor.ended

    async def ready(self) -> None:
        await self._reply_to(0)

    async def _reply_to(self, name: int) -> list[int]:
        try:
            return await asyncio.wait_for(self._replies[name], _REPLY_TIMEOUT_S)
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
        async with self.lock:
            await self.order({"op": "branch", "branch": branch, "new": new})
        self.branches.add(new)
        return new

    async def drop(self, branch: int) -> None:
        """Ends one branch; the supervisor ends with its last one."""
        self.branches.discard(branch)
        if not self.branches:
            return self.close()
        with contextlib.suppress(SessionLost, SupervisorError):
            async with self.lock:
                await self.order({"op": "drop", "branch": branch})

    def close(self) -> None:
        if self.is_closed:
            return
        self.is_closed = True
        self._loop.remove_reader(self._supervisor.control.fileno())
        error = SessionLost("the session has ended")
        for future in (*self._replies.values(), *self._blocks.values()):
            if not future.done():
                future.set_exception(error)
                future.exception()
        self._supervisor.control.close()  # the supervisor kills its processes and ends

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
            if not message["rolled_back"]:
                self.branches.discard(message["branch"])
            if block is not None and not block.done():
                block.set_result((end, message["rolled_back"]))
            return
        reply = self._replies.get(message["id"])
        if reply is None or reply.done():
            for fd in fds:
                os.close(fd)
        elif message["op"] == "failed":
            reply.set_exception(SupervisorError(message["why"]))
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
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        # 3. It died, said that it is done, or nobody waits for it. In the last case, and where its
        #    report admits a broken limit, its state must go: by its death.
        if not death.done() and (cancelled.done() or run.must_not_commit):
            process.kill()
            await asyncio.shield(death)
        # 4. It ended by itself: the process is stopped and the checkpoint killed. It may still die
        #    between its last word and the commit.
        if not death.done():
            try:
                await tree.commit(branch)
            except SupervisorError:
                if not death.done():
                    raise
        if death.done():
            end, is_rolled_back = death.result()
            return run.outcome(end), is_rolled_back
        outcome = run.outcome(None)
        os.close(process.pidfd)
        process.pidfd = -1  # so that closing does not kill what has committed
        return outcome, False
    except SessionLost:
        if checkpoint >= 0:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(checkpoint, signal.SIGKILL)
        raise
    finally:
        run.end()
        process.close()
        if checkpoint >= 0:
            os.close(checkpoint)
