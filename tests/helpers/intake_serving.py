"""A server with the intake of the sandbox's front end and a service that does next to nothing. Not a test."""

import asyncio
import gc
from collections.abc import Awaitable, Callable

import grpc
import grpc.aio
import pytest

from sandbox_server.config import ServerConfig
from sandbox_server.front import batch
from sandbox_server.front.auth import TokenCheck
from sandbox_server.front.intake import ByteBudget, Intake
from sandbox_server.front.metrics import Metrics
from sandbox_server.wire import sandbox_pb2 as pb
from sandbox_server.wire import sandbox_pb2_grpc

TOKEN = b"correct-horse-battery-staple"


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class EchoService(sandbox_pb2_grpc.SandboxServicer):
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


Scenario = Callable[[grpc.aio.Channel, EchoService, ByteBudget, str], Awaitable[None]]


async def _serve(scenario: Scenario, config: ServerConfig, *, has_token: bool) -> None:
    service, budget = EchoService(), ByteBudget(config.num_intake_bytes)
    interceptors: list[grpc.aio.ServerInterceptor] = [TokenCheck(TOKEN)] if has_token else []
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
        await settle()
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
