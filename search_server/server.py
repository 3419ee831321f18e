"""The HTTP server: who may ask, how much at once, and how it ends. Searches run in threads.

    POST /retrieve    Search-R1's protocol, see protocol.py
    GET  /health      200 while serving, 503 while draining; needs no token
    GET  /metrics     Prometheus text

What is refused has {"error": reason}: 400 a wrong request, 401 the token, 408 a body that does not come, 413 a body too
large, 415 a compressed body, 503 with Retry-After when the queue is full or the server drains.
"""

import asyncio
import concurrent.futures
import hmac
import logging
import os
import signal
import ssl
import sys
import time
from collections.abc import Awaitable, Callable

from aiohttp import web

from search_server import protocol
from search_server.config import MIB, ServerConfig, read_token
from search_server.metrics import CONTENT_TYPE, Metrics
from search_server.search import Hit, Search, SearchFailed

log = logging.getLogger("search_server")
QUERIES_A_TASK = 16  # of one request that a thread answers at once; others get their turn between
_RETRY_AFTER_S = 1
_SWITCH_S = (
    0.0005  # the loop waits so long for a searching thread; Python's 5 ms would be in every answer
)
_MOST_HEADERS = 64
_IDLE_S = 120  # a connection that says nothing for so long is closed


class Server:
    """One running server. `start`, then `stop`."""

    def __init__(self, config: ServerConfig, search: Search):
        self.config = config
        self.address = ""
        self._search = search
        self._token = read_token(config.token_file) if config.token_file else b""
        self._queued = 0
        self._is_draining = False
        self._threads = concurrent.futures.ThreadPoolExecutor(config.concurrency, "search")
        self.metrics = Metrics(search.num_documents, lambda: self._queued)
        self._runner: web.AppRunner | None = None
        self._listener: asyncio.Server | None = None

    async def start(self) -> None:
        app = web.Application(
            client_max_size=self.config.max_body_mib * MIB, middlewares=[self._around]
        )
        app.router.add_post("/retrieve", self._retrieve)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        self._runner = web.AppRunner(
            app,
            access_log=None,
            shutdown_timeout=self.config.drain_s,
            handler_cancellation=True,  # a client that is gone is not searched for
            auto_decompress=False,
            keepalive_timeout=_IDLE_S,
            lingering_time=1,
            max_headers=_MOST_HEADERS,
        )
        await self._runner.setup()
        host, port = self.config.host, self.config.port
        try:
            self._listener = await asyncio.get_running_loop().create_server(
                self._connection, host, port, ssl=self._tls(), backlog=256, reuse_port=False
            )
        except OSError as error:
            raise OSError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
        port = self._listener.sockets[0].getsockname()[1]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        if self._token and not self.config.tls_certificate and not self.config.is_local:
            log.warning("the token travels unencrypted: give --tls-certificate and --tls-key")

    def _connection(self) -> asyncio.Protocol:
        """What speaks on a new connection; beyond the most that may be open, a refusal."""
        assert self._runner is not None
        assert self._runner.server is not None
        if len(self._runner.server.connections) >= self.config.max_connections:
            self.metrics.refused.labels("connections").inc()
            return _TooMany()
        return self._runner.server()

    def _tls(self) -> ssl.SSLContext | None:
        if not self.config.tls_certificate:
            return None
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.config.tls_certificate, self.config.tls_key)
        return context

    async def stop(self) -> None:
        """Refuses what is new, lets what runs end within the drain time, stops."""
        self._is_draining = True
        deadline = time.monotonic() + self.config.drain_s
        while self._queued and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        if self._listener is not None:
            self._listener.close()
        if self._runner is not None:
            await self._runner.cleanup()
        self._threads.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def _around(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Token first, before a byte of the body is read; then the handler; every answer is counted."""
        try:
            if request.path != "/health" and not self._may_ask(request):
                raise _refusal(401, "missing or wrong bearer token", "token")
            answer = await handler(request)
        except _Refused as refused:
            self.metrics.refused.labels(refused.reason).inc()
            answer = refused.answer
        except web.HTTPException as error:  # unknown paths and methods
            answer = _error(error.status, f"{request.method} {request.path}: {error.reason}")
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("a request failed")
            answer = _error(500, "the server failed; its log says how")
        self.metrics.requests.labels(str(answer.status)).inc()
        return answer

    def _may_ask(self, request: web.Request) -> bool:
        given = request.headers.get("Authorization", "").encode("utf-8", "surrogateescape")
        return not self._token or hmac.compare_digest(given, b"Bearer " + self._token)

    async def _health(self, _request: web.Request) -> web.Response:
        if self._is_draining:
            return _error(503, "draining")
        return web.json_response({"status": "ok", "documents": self._search.num_documents})

    async def _metrics(self, _request: web.Request) -> web.Response:
        return web.Response(body=self.metrics.text(), headers={"Content-Type": CONTENT_TYPE})

    async def _retrieve(self, request: web.Request) -> web.Response:
        if self._is_draining:
            raise _refusal(503, "draining", "draining")
        body = await self._body(request)
        start = time.monotonic()
        try:
            asked = protocol.read(body, self.config)
        except protocol.BadRequest as error:
            raise _refusal(400, str(error), "request") from error
        if self._queued and self._queued + len(asked.queries) > self.config.queue_queries:
            raise _refusal(503, "the queue is full", "queue")
        self._queued += len(asked.queries)
        try:
            results = await self._results(asked)
        except SearchFailed as error:
            log.warning("the engine failed", extra={"error": str(error)})
            raise _refusal(503, str(error), "engine") from error
        finally:
            self._queued -= len(asked.queries)
        self.metrics.queries.inc(len(results))
        self.metrics.empty.inc(sum(not hits for hits in results))
        answer = protocol.write(results, asked.return_scores)
        self.metrics.seconds.observe(time.monotonic() - start)
        return web.Response(body=answer, content_type="application/json")

    async def _body(self, request: web.Request) -> bytes:
        if request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise _refusal(415, "send the body uncompressed", "encoding")
        limit = self.config.max_body_mib * MIB
        if (request.content_length or 0) > limit:
            raise _too_large(self.config)
        try:
            async with asyncio.timeout(self.config.body_timeout_s):
                return await request.read()
        except web.HTTPRequestEntityTooLarge as error:
            raise _too_large(self.config) from error
        except TimeoutError as error:
            raise _refusal(408, "the body did not come", "slow") from error

    async def _results(self, asked: protocol.Request) -> list[list[Hit]]:
        """In order; at most `concurrency` pieces of one request are with the threads at a time."""
        loop = asyncio.get_running_loop()
        pieces = [
            asked.queries[i : i + QUERIES_A_TASK]
            for i in range(0, len(asked.queries), QUERIES_A_TASK)
        ]
        results: list[list[Hit]] = []
        for i in range(0, len(pieces), self.config.concurrency):
            running = [
                loop.run_in_executor(self._threads, self._search.search, piece, asked.topk)
                for piece in pieces[i : i + self.config.concurrency]
            ]
            for found in await asyncio.gather(*running):
                results.extend(found)
        return results


class _Refused(Exception):
    def __init__(self, answer: web.Response, reason: str):
        self.answer, self.reason = answer, reason


def _error(status: int, message: str) -> web.Response:
    headers = {"Retry-After": str(_RETRY_AFTER_S)} if status == 503 else {}
    return web.json_response({"error": message}, status=status, headers=headers)


def _refusal(status: int, message: str, reason: str) -> _Refused:
    answer = _error(status, message)
    if status == 401:
        answer.headers["WWW-Authenticate"] = "Bearer"
    if reason in ("token", "slow", "size", "encoding", "draining"):
        answer.force_close()  # what is left of the body is not read
    return _Refused(answer, reason)


def _too_large(config: ServerConfig) -> _Refused:
    message = f"the body is larger than {config.max_body_mib} MiB (--max-body-mib)"
    return _refusal(413, message, "size")


class _TooMany(asyncio.Protocol):
    """Answers a connection that is one too many, and closes it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(
            b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: 33\r\n\r\n"
            b'{"error": "too many connections"}'
        )
        transport.close()


async def serve(
    config: ServerConfig, search: Search, announce: Callable[[str], None], watch_stdin: bool
) -> None:
    """Runs until SIGTERM, SIGINT, or the end of standard input if that is watched."""
    loop = asyncio.get_running_loop()
    sys.setswitchinterval(_SWITCH_S)
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
    server = Server(config, search)
    try:
        await server.start()
        announce(server.address)
        await stopping.wait()
        log.info("draining")
    finally:
        await server.stop()
