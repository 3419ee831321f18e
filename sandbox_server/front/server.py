"""Assembles and runs a server: tier, pool, service, health, drain."""

import asyncio
import dataclasses
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from sandbox_server import address as addresses
from sandbox_server.config import ServerConfig
from sandbox_server.front import canaries, descriptors, metrics, probe, start_checks
from sandbox_server.front.auth import TokenCheck, read_token, server_credentials
from sandbox_server.front.engine import Engine
from sandbox_server.front.http_door import HttpDoor
from sandbox_server.front.intake import Intake
from sandbox_server.front.pool import Pool
from sandbox_server.front.service import SandboxService
from sandbox_server.front.unix_address import UnixAddress
from sandbox_server.wire import sandbox_pb2_grpc

SERVICE_NAME = "jaxtool.sandbox.v1.Sandbox"
log = logging.getLogger("sandbox_server")
_HANDSHAKE_TIMEOUT_MS = 10_000  # TLS, and the first frame of HTTP/2: a silent connection ends
_IDLE_TIMEOUT_MS = 600_000  # a connection without calls; clients connect again by themselves
_HEALTH_WATCHES = 1024


def _options(config: ServerConfig) -> list[tuple[str, int]]:
    limit, doors = descriptors.raise_limit(), 2 if config.http_address else 1
    return [
        ("grpc.max_receive_message_length", config.max_message_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the same port is a mistake
        (
            "grpc.max_allowed_incoming_connections",
            descriptors.max_connections(limit, config.concurrency) // doors,
        ),
        ("grpc.server_handshake_timeout_ms", _HANDSHAKE_TIMEOUT_MS),
        ("grpc.max_connection_idle_ms", _IDLE_TIMEOUT_MS),
        ("grpc.max_concurrent_streams", config.max_calls + _HEALTH_WATCHES),
        ("grpc.http2.bdp_probe", 0),  # it widens the windows, so that more is buffered unread
    ]


class Server:
    """One running server. `start`, then `run_until_stopped` or `stop`."""

    def __init__(self, config: ServerConfig):
        self.config = config
        tier, remarks = probe.choose(config)
        self.pool = Pool(config, tier)
        self.engine = Engine(config, self.pool)
        self.metrics = metrics.Metrics()
        self.service = SandboxService(self.engine, remarks, self.metrics)
        self._page: metrics.Page | None = None
        self._http = HttpDoor(config, self.service) if config.http_address else None
        self._watcher: asyncio.Task[None] | None = None
        self.address = ""
        self._unix_address = UnixAddress(config.address)
        self._grpc: grpc.aio.Server | None = None
        self._health = health.aio.HealthServicer()  # pyright: ignore[reportAttributeAccessIssue]

    async def start(self) -> None:
        """Binds, warms up, tests itself, then says SERVING."""
        interceptors: list[grpc.aio.ServerInterceptor] = []
        if self.config.token_file:
            interceptors.append(TokenCheck(read_token(self.config.token_file)))
        interceptors.append(Intake(self.config, self.service.budget, self.metrics))
        server = grpc.aio.server(
            interceptors=interceptors,
            options=_options(self.config),
            maximum_concurrent_rpcs=self.config.max_calls + _HEALTH_WATCHES,
        )
        sandbox_pb2_grpc.add_SandboxServicer_to_server(self.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        with self._unix_address.taken():
            self.address = _bind(server, self.config)
        self._grpc = server
        if self._http is not None:
            await self._http.bind()
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        await self.pool.start()
        await canaries.check(self.engine)
        self.service.sessions.start()
        self._add_gauges()
        if self.config.metrics_address:
            self._page = await self._serve_page(self.config.metrics_address)
        await server.start()
        if self._http is not None:
            await self._http.open()
        await self._say(health_pb2.HealthCheckResponse.SERVING)
        self._watcher = asyncio.create_task(self._watch_health())
        log.info(
            "serving",
            extra={"address": self.address, "http": self.http_url, "tier": str(self.pool.tier)},
        )

    @property
    def http_url(self) -> str:
        """Where SandboxFusion's clients send programs; empty without an HTTP door."""
        return self._http.url if self._http else ""

    def _add_gauges(self) -> None:
        queue, cache, sessions = self.engine.queue, self.service.result_cache, self.service.sessions
        for name, about, read in (
            ("running", "Programs that run", lambda: queue.running),
            ("queued", "Programs that wait", lambda: queue.queued),
            ("result_cache_hits", "Answers of earlier runs", lambda: cache.hits),
            ("result_cache_bytes", "Size of kept answers", lambda: cache.bytes),
            ("sessions", "Open sessions", lambda: len(sessions)),
            ("session_evictions", "Sessions ended to make room", lambda: sessions.evictions),
            ("fork_server_restarts", "Fork servers that died", lambda: self.pool.restarts),
            ("http_connections", "Connections of the HTTP door", self._num_http_connections),
            ("open_descriptors", "Open files", lambda: len(os.listdir("/proc/self/fd"))),
        ):
            self.metrics.add_gauge(f"sandbox_{name}", about, read)

    async def _serve_page(self, address: str) -> metrics.Page:
        where = addresses.read("--metrics-address", address, takes_unix=False)
        assert isinstance(where, addresses.HostPort)
        asks = bool(self.config.token_file) and not where.is_local
        page = metrics.Page(self.metrics, read_token(self.config.token_file) if asks else None)
        await page.start(where)
        return page

    def _num_http_connections(self) -> int:
        return self._http.num_connections if self._http else 0

    async def _watch_health(self) -> None:
        """NOT_SERVING while no fork server lives."""
        was_ready = True
        while True:
            await asyncio.sleep(0.25)
            if self.pool.is_ready != was_ready:
                was_ready = not was_ready
                status = health_pb2.HealthCheckResponse
                await self._say(status.SERVING if was_ready else status.NOT_SERVING)

    async def _say(self, status: int) -> None:
        for name in ("", SERVICE_NAME):
            await self._health.set(name, status)

    async def stop(self) -> None:
        """Refuses what is new, lets what runs end within the drain time, stops."""
        log.info("draining", extra={"running": self.engine.queue.running})
        self.service.is_draining = True
        if self._watcher is not None:
            self._watcher.cancel()
        await self._say(health_pb2.HealthCheckResponse.NOT_SERVING)
        doors: list[Awaitable[object]] = []
        if self._grpc is not None:
            doors.append(self._grpc.stop(self.config.drain_s))
        if self._http is not None:
            doors.append(self._http.stop())
        await asyncio.gather(*doors)
        if self._page is not None:
            self._page.close()
        await self.service.sessions.stop()
        await self.pool.stop()
        self._unix_address.give_back()


def _bind(server: grpc.aio.Server, config: ServerConfig) -> str:
    credentials = server_credentials(config)
    where = addresses.read("--address", config.address)
    try:
        if credentials is not None:
            port = server.add_secure_port(str(where), credentials)
        else:
            if not config.is_local:
                log.warning("the token travels unencrypted: give --tls-certificate and --tls-key")
            port = server.add_insecure_port(str(where))
    except RuntimeError:  # gRPC says no more than that it failed
        raise ValueError(f"--address {where}: gRPC cannot listen there") from None
    return where if isinstance(where, str) else str(dataclasses.replace(where, port=port))


async def serve(
    config: ServerConfig, announce: Callable[[str, str], None], watch_stdin: bool
) -> None:
    """Runs until SIGTERM, SIGINT, or the end of standard input if that is watched."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    if watch_stdin:
        # The starter holds the other end of a pipe: when it dies, however, we end.
        def on_stdin() -> None:
            if not os.read(sys.stdin.fileno(), 4096):
                loop.remove_reader(sys.stdin.fileno())
                stopping.set()

        try:
            loop.add_reader(sys.stdin.fileno(), on_stdin)
        except PermissionError as error:  # epoll's answer to a file and to /dev/null
            raise ValueError(
                "--exit-on-stdin-eof watches standard input, which is a file here: give it a pipe "
                "or a terminal, or leave the flag out"
            ) from error
    start_checks.check(config)
    server = Server(config)
    starting = asyncio.create_task(server.start())
    stop_wait = asyncio.create_task(stopping.wait())
    try:
        await asyncio.wait({starting, stop_wait}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            announce(server.address, server.http_url)
            await stop_wait
    finally:
        starting.cancel()
        stop_wait.cancel()
        await server.stop()
