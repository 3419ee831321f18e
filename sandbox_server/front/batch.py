"""One stream of ExecuteBatch: requests run side by side, answers go out as they come.

A request is read when fewer than `window` are running or wait for the client to read their answer, and when
the budget of bytes has room. So a client that reads nothing is soon not read from either.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

from sandbox_server.front.intake import ByteBudget
from sandbox_server.wire import sandbox_pb2 as pb


async def answers(
    requests: AsyncIterator[pb.ExecuteRequest],
    execute: Callable[[pb.ExecuteRequest], Awaitable[pb.BatchResponse]],
    window: int,
    budget: ByteBudget,
) -> AsyncGenerator[pb.BatchResponse, None]:
    """An answer for each request. What ends the stream of requests early is raised after the last."""
    ended: asyncio.Queue[pb.BatchResponse | None] = asyncio.Queue()  # None: no request follows
    places = asyncio.Semaphore(window)
    running: set[asyncio.Task[None]] = set()
    num_open = 0

    async def run(request: pb.ExecuteRequest, size: int) -> None:
        try:
            answer = await execute(request)
        finally:
            budget.give_back(size)
        ended.put_nowait(answer)

    async def read_all() -> None:
        nonlocal num_open
        while True:
            await places.acquire()
            try:
                request = await anext(requests)
            except StopAsyncIteration:
                return
            size = request.ByteSize()
            await budget.take(size)
            num_open += 1
            task = asyncio.create_task(run(request, size))
            running.add(task)
            task.add_done_callback(running.discard)

    reader = asyncio.create_task(read_all())
    reader.add_done_callback(lambda _: ended.put_nowait(None))
    try:
        while num_open or not reader.done():
            answer = await ended.get()
            if answer is not None:
                yield answer  # returns when the client has taken it
                num_open -= 1
                places.release()
        reader.result()
    finally:
        reader.cancel()
        for task in running:
            task.cancel()
