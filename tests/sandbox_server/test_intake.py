"""Requests are read when there is room for them, batches when their answers are; nothing of refused calls is."""

import asyncio
import contextlib
import logging
import socket
import types

import grpc
import grpc.aio
import pytest
from helpers.intake_serving import TOKEN, error_of, serve, settle

from sandbox_server.config import ServerConfig
from sandbox_server.front import intake
from sandbox_server.front.auth import TokenCheck
from sandbox_server.front.intake import ByteBudget, Intake
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


def test_the_budget_gives_in_order_and_gets_all_back():
    async def scenario() -> None:
        budget, order = ByteBudget(100), []

        async def user(name: str, size: int) -> None:
            await budget.take(size)
            order.append(name)

        await budget.take(60)
        big, small = asyncio.create_task(user("big", 80)), asyncio.create_task(user("small", 10))
        await settle()
        assert order == []  # a small one does not overtake, or big ones would wait for ever
        budget.give_back(60)
        await settle()
        assert order == ["big", "small"]
        last = asyncio.create_task(user("last", 100))
        after = asyncio.create_task(user("after", 5))
        await settle()
        last.cancel()
        await settle()
        assert order == ["big", "small", "after"]
        budget.give_back(95)
        assert budget.free == 100
        await asyncio.gather(big, small, after)
        # Cancelled in the moment of its turn: what it was given comes back.
        await budget.take(100)
        unlucky = asyncio.create_task(user("unlucky", 100))
        await settle()
        budget.give_back(100)
        unlucky.cancel()
        await settle()
        assert budget.free == 100

    asyncio.run(scenario())


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
        return await TokenCheck(TOKEN).intercept_service(continuation, details)  # pyright: ignore

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


def test_silent_sockets_are_no_calls():
    async def scenario(channel, service, budget, address) -> None:
        host, _, port = address.partition(":")
        with contextlib.ExitStack() as stack:
            for _ in range(20):
                stack.enter_context(socket.create_connection((host, int(port))))
            stub = sandbox_pb2_grpc.SandboxStub(channel)
            assert (await stub.Execute(pb.ExecuteRequest(code="ab"))).stdout == "2"

    serve(scenario)
