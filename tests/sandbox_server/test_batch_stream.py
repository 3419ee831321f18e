"""A stream of requests is read as its answers are; what it took is given back however it ends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from helpers.intake_serving import serve, settle

from sandbox_server.front import batch
from sandbox_server.front.intake import ByteBudget
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc


async def _numbered(
    count: int, taken: list[int], fails_at: int = -1
) -> AsyncIterator[pb.ExecuteRequest]:
    for index in range(count):
        taken.append(index)
        if index == fails_at:
            raise ValueError("the stream broke")
        yield pb.ExecuteRequest(request_id=str(index), code="x" * 90)


async def _echo(request: pb.ExecuteRequest) -> pb.BatchResponse:
    await asyncio.sleep(0)
    return pb.BatchResponse(request_id=request.request_id)


def test_a_client_that_reads_nothing_is_soon_not_read_from():
    async def scenario() -> None:
        taken: list[int] = []
        budget = ByteBudget(10_000)
        stream = batch.answers(_numbered(4000, taken), _echo, 8, budget)
        got = [await anext(stream)]
        for _ in range(200):
            await asyncio.sleep(0)
        assert len(taken) == 8  # seven unread answers, and the one that the client is about to take
        got += [answer async for answer in stream]
        assert sorted(int(answer.request_id) for answer in got) == list(range(4000))
        assert budget.free == 10_000

    asyncio.run(scenario())


def test_over_a_channel_a_client_that_reads_nothing_is_soon_not_read_from():
    """gRPC and the kernel hold some MiB that nobody reads (4 to 9 were seen); these are 90."""
    count = 3000

    async def scenario(channel, service, budget, address) -> None:
        call = sandbox_pb2_grpc.SandboxStub(channel).ExecuteBatch()

        async def write() -> None:
            for index in range(count):
                await call.write(pb.ExecuteRequest(request_id=f"{index} " + "x" * 30_000))
            await call.done_writing()

        writing = asyncio.create_task(write())
        before = -1
        async with asyncio.timeout(60):
            while service.num_read != before or before < 4:  # until it stands still
                before = service.num_read
                await asyncio.sleep(0.5)
        assert service.num_read < count / 2
        assert not writing.done()
        answers = [answer.request_id.split()[0] async for answer in call]
        assert sorted(map(int, answers)) == list(range(count))

    serve(scenario)


def test_a_batch_takes_no_more_bytes_than_there_are():
    async def scenario() -> None:
        taken: list[int] = []
        budget, go = ByteBudget(300), asyncio.Event()

        async def execute(request: pb.ExecuteRequest) -> pb.BatchResponse:
            await go.wait()
            return await _echo(request)

        stream = batch.answers(_numbered(20, taken), execute, 16, budget)
        first = asyncio.create_task(anext(stream))
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(taken) == 4  # three of about 94 bytes, and one that waits
        go.set()
        assert len([await first, *[answer async for answer in stream]]) == 20
        assert budget.free == 300

    asyncio.run(scenario())


@pytest.mark.parametrize("count", [0, 1, 7])
def test_a_broken_stream_is_told_after_the_last_answer(count):
    async def scenario() -> None:
        budget, got = ByteBudget(10_000), []

        async def read() -> None:
            async for answer in batch.answers(_numbered(9, [], count), _echo, 4, budget):
                got.append(answer.request_id)

        with pytest.raises(ValueError, match="the stream broke"):
            await read()
        assert len(got) == count
        assert budget.free == 10_000

    asyncio.run(scenario())


def test_a_batch_that_is_given_up_gives_everything_back():
    async def scenario() -> None:
        budget, cancelled = ByteBudget(10_000), []

        async def execute(request: pb.ExecuteRequest) -> pb.BatchResponse:
            try:
                if request.request_id != "0":
                    await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(request.request_id)
                raise
            return pb.BatchResponse()

        stream = batch.answers(_numbered(9, []), execute, 4, budget)
        async with contextlib.aclosing(stream):
            await anext(stream)
            await settle()
        await settle()
        assert sorted(cancelled) == ["1", "2", "3"]
        assert budget.free == 10_000

    asyncio.run(scenario())
