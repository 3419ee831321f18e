"""Requests are read when there is room for them, batches when their answers are; nothing of refused calls is."""

import asyncio
import contextlib
import gc
import logging
import socket
import types
from collections.abc import AsyncIterator, Awaitable, Callable

import grpc
import grpc.aio
import pytest

from sandbox_server.config import ServerConfig
from sandbox_server.front import batch, intake
from sandbox_server.front.auth import TokenCheck
from sandbox_server.front.intake import ByteBudget, Intake
from sandbox_server.front.metrics import Metrics
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

_TOKEN = b"correct-horse-battery-staple"
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


async def _settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


def test_the_budget_gives_in_order_and_gets_all_back():
    async def scenario() -> None:
        budget, order = ByteBudget(100), []

        async def user(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)

        await budget.take(60)
        big, small = asyncio.create_task(user("big", 80)), asyncio.create_task(user("small", 10))
        await _settle()
        assert order == []  # a small one does not overtake, or big ones would wait for ever
        budget.give_back(60)
        await _settle()
        assert order == ["big", "small"]
        last = asyncio.create_task(user("last", 100))
        after = asyncio.create_task(user("after", 5))
        await _settle()
        last.cancel()
        await _settle()
        assert order == ["big", "small", "after"]
        budget.give_back(95)
        assert budget.free == 100
        await asyncio.gather(big, small, after)
        # Cancelled in the moment of its turn: what it was given comes back.
        await budget.take(100)
        unlucky = asyncio.create_task(user("unlucky", 100))
        await _settle()
        budget.give_back(100)
        unlucky.cancel()
        await _settle()
        assert budget.free == 100

    asyncio.run(scenario())


class _Service(sandbox_pb2_grpc.SandboxServicer):
    """Answers with the length of the code, when `go` is set."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.num_read = 0

    async def Execute(self, request, context):
        self.num_read += 1
        await self.go.wait()
        return pb.ExecuteResponse(stdout=str(len(request.code)))

    async def ExecuteBatch(self, request_iterator, context):
        async def echo(request: pb.ExecuteRequest) -> pb.BatchResponse:
            self.num_read += 1
            return pb.BatchResponse(request_id=request.request_id)

        async for answer in batch.answers(request_iterator, echo, 4, ByteBudget(1 << 30)):
            yield answer


Scenario = Callable[[grpc.aio.Channel, _Service, ByteBudget, str], Awaitable[None]]


async def _serve(scenario: Scenario, config: ServerConfig, *, has_token: bool) -> None:
    service, budget = _Service(), ByteBudget(config.num_intake_bytes)
    interceptors: list[grpc.aio.ServerInterceptor] = [TokenCheck(_TOKEN)] if has_token else []
    interceptors.append(Intake(config, budget, Metrics()))
    server = grpc.aio.server(
        interceptors=interceptors,
        options=[("grpc.max_receive_message_length", config.max_message_bytes)],
    )
    sandbox_pb2_grpc.add_SandboxServicer_to_server(service, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    try:
        async with grpc.aio.insecure_channel(address) as channel:
            await scenario(channel, service, budget, address)
        await _settle()
        assert budget.free == config.num_intake_bytes
    finally:
        await server.stop(None)
        del server
        gc.collect()


def serve(scenario: Scenario, config: ServerConfig | None = None, *, has_token=False) -> None:
    asyncio.run(_serve(scenario, config or ServerConfig(), has_token=has_token))


async def error_of(call) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def test_a_call_goes_through():
    async def scenario(channel, service, budget, address) -> None:
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        assert (await stub.Execute(pb.ExecuteRequest(code="abc"))).stdout == "3"
        requests = [pb.ExecuteRequest(request_id=str(i)) for i in range(3)]
        assert [a.request_id async for a in stub.ExecuteBatch(iter(requests))] == ["0", "1", "2"]

    serve(scenario)


@pytest.mark.parametrize("method", ["Execute", "CreateSession", "CloseSession", "Info"])
def test_nothing_is_read_of_a_caller_without_the_token(method, monkeypatch):
    async def never(_intake, _messages):
        raise AssertionError("read")

    monkeypatch.setattr(Intake, "_first", never)

    async def scenario(channel, service, budget, address) -> None:
        call = channel.unary_unary(f"/jaxtool.sandbox.v1.Sandbox/{method}")
        error = await error_of(call(b"\x12\xff\xff\xff\x03" + b"x" * (8 << 20)))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED

    serve(scenario, has_token=True)


def test_a_refusal_takes_a_stream_so_that_grpc_reads_nothing():
    async def handler_for(method: str) -> grpc.RpcMethodHandler:
        async def continuation(_details):
            return grpc.unary_unary_rpc_method_handler(lambda request, context: None)

        details = types.SimpleNamespace(method=method, invocation_metadata=())
        return await TokenCheck(_TOKEN).intercept_service(continuation, details)  # pyright: ignore

    handler = asyncio.run(handler_for("/jaxtool.sandbox.v1.Sandbox/Execute"))
    assert handler.request_streaming


def test_requests_wait_unread_where_there_is_no_room():
    config = ServerConfig(input_bytes=1 << 20, intake_bytes=1)  # room for one longest request

    async def scenario(channel, service, budget, address) -> None:
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        service.go.clear()
        request = pb.ExecuteRequest(code="x" * 1000)
        calls = [stub.Execute(request)]
        while service.num_read < 1:
            await asyncio.sleep(0.001)
        calls += [stub.Execute(request), stub.Execute(request)]
        # The first holds its own thousand bytes, which leaves too little for a longest one.
        while len(budget._waiting) < 2:
            await asyncio.sleep(0.001)
        assert service.num_read == 1
        assert budget.free == config.max_message_bytes - request.ByteSize()
        calls[1].cancel()
        while len(budget._waiting) > 1:
            await asyncio.sleep(0.001)
        service.go.set()
        assert (await calls[0]).stdout == (await calls[2]).stdout == "1000"
        assert service.num_read == 2

    serve(scenario, config)


def test_who_waits_too_long_for_room_is_told_to_come_back():
    config = ServerConfig(intake_bytes=1, queue_wait_s=0.05)

    async def scenario(channel, service, budget, address) -> None:
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        service.go.clear()
        first = stub.Execute(pb.ExecuteRequest(code="x"))
        while service.num_read < 1:
            await asyncio.sleep(0.001)
        error = await error_of(stub.Execute(pb.ExecuteRequest(code="x")))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.trailing_metadata())["retry-after-ms"] == "500"
        service.go.set()
        await first

    serve(scenario, config)


def test_calls_beyond_the_most_are_told_to_come_back():
    config = ServerConfig(concurrency=1, queue_capacity=1, session_capacity=1)

    async def scenario(channel, service, budget, address) -> None:
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        service.go.clear()
        calls = [stub.Execute(pb.ExecuteRequest()) for _ in range(config.max_calls)]
        while service.num_read < config.max_calls:
            await asyncio.sleep(0.001)
        error = await error_of(stub.Execute(pb.ExecuteRequest()))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert dict(error.trailing_metadata())["retry-after-ms"] == "500"
        service.go.set()
        await asyncio.gather(*calls)
        await stub.Execute(pb.ExecuteRequest())

    serve(scenario, config)


@pytest.mark.parametrize(
    "garbage", [b"\xff" * 50, b"\x0a\x7f", b"\x12\x01\xff", b"\x0a\xff\xff\xff\xff\x0f"]
)
def test_a_message_that_is_no_request_is_one_line_in_the_log(garbage, caplog):
    async def scenario(channel, service, budget, address) -> None:
        error = await error_of(channel.unary_unary("/jaxtool.sandbox.v1.Sandbox/Execute")(garbage))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "the message is no request of Execute"
        stream = channel.stream_stream("/jaxtool.sandbox.v1.Sandbox/ExecuteBatch")
        error = await error_of(anext(aiter(stream(iter([garbage])))))
        assert error.code() is grpc.StatusCode.INTERNAL

    with caplog.at_level(logging.WARNING):
        serve(scenario)
    assert [record.message for record in caplog.records] == ["unreadable request"] * 2
    assert not any(record.exc_info for record in caplog.records)


def test_a_call_without_a_message_is_refused():
    async def scenario(channel, service, budget, address) -> None:
        call = channel.stream_unary("/jaxtool.sandbox.v1.Sandbox/Execute")
        error = await error_of(call(iter(())))
        assert error.code() is grpc.StatusCode.INTERNAL
        assert error.details() == "the call came without a request"

    serve(scenario)


def test_a_message_longer_than_the_longest_is_refused_without_noise(caplog):
    config = ServerConfig(input_bytes=1, code_bytes=1)
    too_long = pb.ExecuteRequest(code="x" * (config.max_message_bytes + 1))

    async def scenario(channel, service, budget, address) -> None:
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        error = await error_of(stub.Execute(too_long))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert "larger than max" in (error.details() or "")
        error = await error_of(anext(aiter(stub.ExecuteBatch(iter([too_long])))))
        assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert service.num_read == 0

    serve(scenario, config)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(intake, "_BODY_TIMEOUT_S", 0.05)

    async def scenario(channel, service, budget, address) -> None:
        call = channel.stream_unary("/jaxtool.sandbox.v1.Sandbox/Execute")()
        error = await error_of(call)
        assert error.code() is _UNAVAILABLE
        assert "did not come whole" in (error.details() or "")

    serve(scenario)


def test_silent_calls_do_not_keep_the_room_from_others(monkeypatch):
    monkeypatch.setattr(intake, "_HURRIED_BODY_TIMEOUT_S", 0.05)
    config = ServerConfig(intake_bytes=1)  # room for one longest request

    async def scenario(channel, service, budget, address) -> None:
        method = "/jaxtool.sandbox.v1.Sandbox/Execute"
        silent = [asyncio.ensure_future(channel.stream_unary(method)()) for _ in range(3)]
        while budget.free or not budget.is_waited_for:
            await asyncio.sleep(0.001)
        stub = sandbox_pb2_grpc.SandboxStub(channel)
        assert (await stub.Execute(pb.ExecuteRequest(code="ab"), timeout=20)).stdout == "2"
        for call in silent:
            assert (await error_of(call)).code() is _UNAVAILABLE

    serve(scenario, config)


# --- batches


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
    """gRPC itself takes about 4 MiB of answers that nobody reads, some 140 of these."""

    async def scenario(channel, service, budget, address) -> None:
        call = sandbox_pb2_grpc.SandboxStub(channel).ExecuteBatch()

        async def write() -> None:
            for index in range(400):
                await call.write(pb.ExecuteRequest(request_id=f"{index} " + "x" * 30_000))
            await call.done_writing()

        writing = asyncio.create_task(write())
        before = -1
        while service.num_read != before:  # until it stands still
            before = service.num_read
            await asyncio.sleep(0.2)
        assert 4 <= service.num_read < 300
        assert not writing.done()
        answers = [answer.request_id.split()[0] async for answer in call]
        assert sorted(map(int, answers)) == list(range(400))

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
            await _settle()
        await _settle()
        assert sorted(cancelled) == ["1", "2", "3"]
        assert budget.free == 10_000

    asyncio.run(scenario())


def test_silent_sockets_are_no_calls():
    async def scenario(channel, service, budget, address) -> None:
        host, _, port = address.partition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection((host, int(port))))
            stub = sandbox_pb2_grpc.SandboxStub(channel)
            assert (await stub.Execute(pb.ExecuteRequest(code="ab"))).stdout == "2"

    serve(scenario)
