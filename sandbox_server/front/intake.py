"""When a request is read: a refused call's never, any other's when there is room for it.

gRPC for Python reads and parses a request before it calls the handler, so that six bodies of 60 MiB cost
600 MiB whoever sends them. Here each handler takes a stream, which gRPC does not read for it:

  1. TokenCheck (auth.py) refuses with a handler that reads nothing.
  2. Calls beyond `max_calls` are refused.
  3. The longest message there can be is taken from a budget of bytes. Where it has no room the call
     waits unread, and HTTP/2's windows hold its sender back.
  4. The message is read, in bounded time, and parsed. Its own size stays taken until the call ends.
     While others wait for room the time is two seconds, so that silent calls do not keep it from them.

Streams (ExecuteBatch) are read by batch.py, which takes from the same budget.
"""

import asyncio
import collections
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from sandbox_server.config import ServerConfig
from sandbox_server.front.metrics import Metrics

_SERVICE_PREFIX = "/jaxtool.sandbox.v1.Sandbox/"
_BODY_TIMEOUT_S = 30.0
_HURRIED_BODY_TIMEOUT_S = 2.0
_RETRY_AFTER_MS = 500
log = logging.getLogger("sandbox_server.intake")


class ByteBudget:
    """Bytes that requests may take together. Who finds no room waits, first come first served."""

    def __init__(self, total: int):
        self.free = total
        self._waiting: collections.deque[tuple[int, asyncio.Future[None]]] = collections.deque()

    @property
    def is_waited_for(self) -> bool:
        return bool(self._waiting)

    def take_now(self, size: int) -> bool:
        """Takes them if there is room and nobody waits."""
        if size > self.free or self._waiting:
            return False
        self.free -= size
        return True

    async def take(self, size: int) -> None:
        if self.take_now(size):
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((size, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.give_back(size)  # the turn came while we were being cancelled
            else:
                self._waiting.remove((size, turn))
                self._wake()  # a smaller one behind us may have room
            raise

    def give_back(self, size: int) -> None:
        self.free += size
        self._wake()

    def _wake(self) -> None:
        while self._waiting and self._waiting[0][0] <= self.free:
            size, turn = self._waiting.popleft()
            if not turn.done():
                self.free -= size
                turn.set_result(None)


class _Refused(Exception):
    """A call that ends here."""

    def __init__(self, code: grpc.StatusCode, message: str, retry_after_ms: int = 0):
        super().__init__(message)
        self.code = code
        self.trailer = (("retry-after-ms", str(retry_after_ms)),) if retry_after_ms else ()


class Intake(grpc.aio.ServerInterceptor):
    """Puts itself between gRPC and the handlers of the sandbox service."""

    def __init__(self, config: ServerConfig, budget: ByteBudget, metrics: Metrics):
        self._config = config
        self._budget = budget
        self._metrics = metrics
        self._num_calls = 0
        self._reading: dict[asyncio.Timeout, float] = {}  # since when

    async def intercept_service(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler:
        handler: Any = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(_SERVICE_PREFIX):
            return handler  # pyright: ignore[reportReturnType]
        name = method.removeprefix(_SERVICE_PREFIX)
        if handler.request_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._stream(name, handler),
                response_serializer=handler.response_serializer,
            )
        return grpc.stream_unary_rpc_method_handler(
            self._unary(name, handler),
            response_serializer=handler.response_serializer,
        )

    def _unary(self, name: str, handler: Any):
        parse = handler.request_deserializer
        behave = handler.unary_unary

        # Each call comes by here, so there are no context managers on the way of one that is taken.
        async def handle(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext):
            taken = 0
            try:
                self._enter()
                try:
                    taken = await self._room_for_one()
                    data = await self._first(messages)
                    self._budget.give_back(taken - len(data))
                    taken = len(data)
                    request = self._parsed(name, parse, data)
                    del data
                    return await behave(request, context)
                finally:
                    self._budget.give_back(taken)
                    self._num_calls -= 1
            except _Refused as refused:
                await self._refuse(refused, context)

        return handle

    def _stream(self, name: str, handler: Any):
        parse = handler.request_deserializer
        behave = handler.stream_stream

        async def requests(messages: AsyncIterator[bytes]):
            async for data in messages:
                yield self._parsed(name, parse, data)

        async def handle(messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext):
            work = behave(requests(messages), context)
            try:
                self._enter()
                try:
                    async with contextlib.aclosing(work) as answers:
                        async for answer in answers:
                            yield answer
                finally:
                    self._num_calls -= 1
            except _Refused as refused:
                await self._refuse(refused, context)

        return handle

    async def _refuse(self, refused: _Refused, context: grpc.aio.ServicerContext) -> None:
        self._metrics.count_refusal(refused.code.name.lower())
        await context.abort(refused.code, str(refused), refused.trailer)

    def _enter(self) -> None:
        """Counts a call in; who calls this counts it out."""
        if self._num_calls >= self._config.max_calls:
            raise _Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                f"{self._num_calls} calls are open already",
                _RETRY_AFTER_MS,
            )
        self._num_calls += 1

    async def _room_for_one(self) -> int:
        """Takes the bytes of the longest message from the budget, in bounded time; how many they are."""
        wanted = self._config.max_message_bytes
        if self._budget.take_now(wanted):
            return wanted
        if wanted > self._budget.free:
            self._hurry()
        try:
            async with asyncio.timeout(self._config.queue_wait_s):
                await self._budget.take(wanted)
        except TimeoutError:
            raise _Refused(
                grpc.StatusCode.RESOURCE_EXHAUSTED,
                "the requests that wait take all the memory there is for them",
                _RETRY_AFTER_MS,
            ) from None
        return wanted

    async def _first(self, messages: AsyncIterator[bytes]) -> bytes:
        limit_s = _HURRIED_BODY_TIMEOUT_S if self._budget.is_waited_for else _BODY_TIMEOUT_S
        try:
            async with asyncio.timeout(limit_s) as limit:
                self._reading[limit] = asyncio.get_running_loop().time()
                try:
                    return await anext(messages)
                finally:
                    del self._reading[limit]
        except TimeoutError:
            message = "the request did not come whole in time"
            raise _Refused(grpc.StatusCode.UNAVAILABLE, message, _RETRY_AFTER_MS) from None
        except StopAsyncIteration:
            raise _Refused(grpc.StatusCode.INTERNAL, "the call came without a request") from None

    def _hurry(self) -> None:
        """Somebody waits for room: gives those that are being read less time."""
        now = asyncio.get_running_loop().time()
        for limit, since in self._reading.items():
            end = limit.when()
            if end is not None and not limit.expired():
                limit.reschedule(max(now, min(end, since + _HURRIED_BODY_TIMEOUT_S)))

    def _parsed(self, name: str, parse: Callable[[bytes], object], data: bytes) -> object:
        try:
            return parse(data)
        except (DecodeError, ValueError):
            log.warning("unreadable request", extra={"method": name, "bytes": len(data)})
            raise _Refused(
                grpc.StatusCode.INTERNAL, f"the message is no request of {name}"
            ) from None
