"""The sandbox server's HTTP door without a sandbox: on a loop of its own thread, before a service that is told what to do."""

import asyncio
import contextlib
import dataclasses
import socket
import threading
import time

from sandbox_server.config import ServerConfig
from sandbox_server.front import http_door
from sandbox_server.front.service import Refusal
from sandbox_server.wire import sandbox_pb2 as pb


@dataclasses.dataclass
class FakeService:
    """Answers each program at once, unless told what to raise first, or to wait."""

    errors: list[Exception] = dataclasses.field(default_factory=list)
    requests: list[tuple[pb.ExecuteRequest, str]] = dataclasses.field(default_factory=list)
    refusals: list[Refusal] = dataclasses.field(default_factory=list)
    waits: asyncio.Event | None = None
    cancelled: int = 0
    is_draining: bool = False
    is_ready: bool = True

    async def execute(self, request: pb.ExecuteRequest, client: str) -> pb.ExecuteResponse:
        self.requests.append((request, client))
        if self.errors:
            raise self.errors.pop(0)
        try:
            if self.waits is not None:
                await self.waits.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return pb.ExecuteResponse(status=pb.STATUS_OK, stdout="1\n", wall_ms=5, server_id="me")

    def count_refusal(self, refusal: Refusal) -> None:
        self.refusals.append(refusal)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opened:
    url: str
    door: http_door.HttpDoor
    service: FakeService
    loop: asyncio.AbstractEventLoop

    def call(self, work):
        """Runs a coroutine or a function on the door's loop."""
        if asyncio.iscoroutine(work):
            return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

        async def one():
            return work()

        return asyncio.run_coroutine_threadsafe(one(), self.loop).result(30)

    def raw(self, *parts: bytes, timeout_s: float = 10.0) -> bytes:
        """Everything that comes back for these bytes until the door closes, or falls silent."""
        with self.plug(timeout_s) as plug:
            with contextlib.suppress(OSError):
                for part in parts:
                    plug.sendall(part)
            got = b""
            with contextlib.suppress(TimeoutError, ConnectionResetError):
                while chunk := plug.recv(65536):
                    got += chunk
            return got

    def plug(self, timeout_s: float = 10.0) -> socket.socket:
        host, port = self.url.split("/")[2].split(":")
        return socket.create_connection((host, int(port)), timeout=timeout_s)


@contextlib.contextmanager
def opened(**settings):
    """A door on a loop of its own thread."""
    service = FakeService()
    config = ServerConfig(**({"http_address": "127.0.0.1:0", "drain_s": 5.0} | settings))
    door = http_door.HttpDoor(config, service)  # pyright: ignore[reportArgumentType]
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(door.bind(), loop).result(10)
        asyncio.run_coroutine_threadsafe(door.open(), loop).result(10)
        yield Opened(url=door.url, door=door, service=service, loop=loop)
    finally:
        asyncio.run_coroutine_threadsafe(door.stop(), loop).result(30)
        left = door.num_connections, door._body_bytes
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
        assert left == (0, 0)


def until(is_so) -> None:
    stop = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < stop
        time.sleep(0.005)
