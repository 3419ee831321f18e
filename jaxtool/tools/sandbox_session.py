"""A stateful interpreter on one sandbox server: blocks share names and values, branches fork.

It lives on the server that made it and nowhere else. When it is lost (expired, evicted, its server
gone, ended by its own block) every later call raises SessionLost: a fresh interpreter in its place
would answer wrongly without a word. A block is never sent twice, except when the server refused it
before it ran.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import grpc
import grpc.aio

from jaxtool.core.types import ToolResult, ToolUnavailable
from jaxtool.tools.code_sessions import BlockResult, SessionLost
from jaxtool.tools.sandbox_wire import (
    UnknownReply,
    one_line,
    refusal_of,
    result_of,
    retry_after_s,
    sendable,
)
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

T = TypeVar("T")
_SHORTEST_PAUSE_S = 0.1
_CLOSE_TIMEOUT_S = 10.0


class SandboxSession:
    """Made by `SandboxClient.create_session`. One block at a time; use it from the client's loop.

    Close it, also one that is lost: only then does the client count its place at the server as free.

    Attributes:
      address: the server that holds it.
      is_lost: calls raise SessionLost from now on.
    """

    def __init__(
        self,
        *,
        address: str,
        session_id: str,
        stub: sandbox_pb2_grpc.SandboxStub,
        metadata: tuple[tuple[str, str], ...],
        deadline_s: float,
        places: asyncio.Semaphore,
        on_result: Callable[[ToolResult], None],
        on_close: Callable[[], None] = lambda: None,
    ):
        """Args:
        places: of calls in flight, the client's.
        on_result: is told of each block that has run.
        on_close: is told once.
        """
        self.address = address
        self.is_lost = False
        self._session_id = session_id
        self._stub = stub
        self._metadata = metadata
        self._deadline_s = deadline_s
        self._places = places
        self._on_result = on_result
        self._on_close = on_close
        self._is_closed = False

    async def execute(self, code: str) -> BlockResult:
        """Runs one block. Raises SessionLost, or ToolUnavailable if the server stays full."""
        code = sendable(code)
        refusal = refusal_of(code)
        if refusal is not None:
            return BlockResult(result=refusal)
        request = pb.SessionExecuteRequest(session_id=self._session_id, code=code)
        async with self._places:
            response: pb.ExecuteResponse = await self._call(
                lambda: self._stub.ExecuteInSession(
                    request, timeout=self._deadline_s, metadata=self._metadata
                )
            )
        self.is_lost = response.session_lost
        try:
            result = result_of(response)
        except UnknownReply as error:  # the block has run, and nobody knows how it ended
            self.is_lost = True
            raise SessionLost(one_line(self.address, error)) from error
        self._on_result(result)
        return BlockResult(
            result=result,
            is_rolled_back=response.rolled_back,
            is_lost=response.session_lost,
            is_evicted=response.session_evicted,
        )

    async def fork(self) -> "SandboxSession":
        """A second session on the same server that starts from this one's present state."""
        request = pb.ForkSessionRequest(session_id=self._session_id)
        made: pb.Session = await self._call(
            lambda: self._stub.ForkSession(
                request, timeout=self._deadline_s, metadata=self._metadata
            )
        )
        return SandboxSession(
            address=self.address,
            session_id=made.session_id,
            stub=self._stub,
            metadata=self._metadata,
            deadline_s=self._deadline_s,
            places=self._places,
            on_result=self._on_result,
        )

    async def close(self) -> None:
        """Ends it. Never raises: what cannot be closed now expires at the server."""
        self.is_lost = True
        if self._is_closed:
            return
        self._is_closed = True
        request = pb.CloseSessionRequest(session_id=self._session_id)
        try:
            await self._stub.CloseSession(
                request, timeout=_CLOSE_TIMEOUT_S, metadata=self._metadata
            )
        except grpc.aio.AioRpcError:
            return
        finally:
            self._on_close()

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        """Waits while the server is full. Any other failure may have run the block: it is lost."""
        give_up = time.monotonic() + self._deadline_s
        while True:
            if self.is_lost:
                raise SessionLost(f"the session on {self.address} has ended")
            try:
                return await call()
            except asyncio.CancelledError:
                self.is_lost = True  # nobody knows whether the block has run
                raise
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED:
                    self.is_lost = True
                    raise SessionLost(one_line(self.address, error)) from error
                pause_s = max(_SHORTEST_PAUSE_S, retry_after_s(error))
                if time.monotonic() + pause_s > give_up:
                    raise ToolUnavailable(one_line(self.address, error)) from error
            await asyncio.sleep(pause_s)
