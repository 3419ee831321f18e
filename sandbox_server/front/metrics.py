"""Counters, histograms and gauges of one server by `prometheus_client`, and the page that serves them.

The page is written here and not the library's, whose thread for each connection waits for a silent client
for ever. This one gives each five seconds, and serves sixteen at once.
"""

import asyncio
import contextlib
import hmac
from collections.abc import Callable

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from sandbox_server import address as addresses

_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_REQUEST_TIMEOUT_S = 5.0
_REQUEST_BYTES = 8192
_MOST_CONNECTIONS = 16


class Metrics:
    """All metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        # When each counter was made is of no use and doubles the page. A setting of the whole process.
        prometheus_client.disable_created_metrics()
        self.registry = CollectorRegistry()
        self._executions = Counter(
            "sandbox_executions_total", "Programs and blocks that ran", ["status"],
            registry=self.registry,
        )  # fmt: skip
        self._refusals = Counter(
            "sandbox_refusals_total", "Calls that ended with a gRPC error", ["code"],
            registry=self.registry,
        )  # fmt: skip
        self.queue_s = self._seconds("sandbox_queue_seconds", "Time that runs waited")
        self.cpu_s = self._seconds("sandbox_cpu_seconds", "CPU time of runs")
        self.wall_s = self._seconds("sandbox_wall_seconds", "Duration of runs")

    def _seconds(self, name: str, about: str) -> Histogram:
        return Histogram(name, about, buckets=_BUCKETS_S, registry=self.registry)

    def count_execution(self, status: str) -> None:
        self._executions.labels(status=status).inc()

    def count_refusal(self, code: str) -> None:
        self._refusals.labels(code=code).inc()

    def add_gauge(self, name: str, about: str, read: Callable[[], float]) -> None:
        """`read` is called when the page is asked for."""
        Gauge(name, about, registry=self.registry).set_function(read)


class Page:
    """Answers GET /metrics. With a token it wants `authorization: Bearer <token>`."""

    def __init__(self, metrics: Metrics, token: bytes | None):
        self._registry = metrics.registry
        self._expected = None if token is None else b"Bearer " + token
        self._num_open = 0
        self._server: asyncio.Server | None = None

    async def start(self, where: addresses.HostPort) -> None:
        self._server = await asyncio.start_server(
            self._serve, where.host or None, where.port, limit=_REQUEST_BYTES
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._num_open += 1
        try:
            # IncompleteReadError and LimitOverrunError are ends of streams that are no requests.
            with contextlib.suppress(OSError, EOFError, asyncio.LimitOverrunError):
                if self._num_open <= _MOST_CONNECTIONS:
                    async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                        writer.write(self._answer(await reader.readuntil(b"\r\n\r\n")))
                        await writer.drain()
        finally:
            self._num_open -= 1
            writer.close()

    def _answer(self, request: bytes) -> bytes:
        first, *lines = request.split(b"\r\n")
        headers = {
            name.strip().lower(): value.strip()
            for name, _, value in (line.partition(b":") for line in lines)
        }
        given = headers.get(b"authorization", b"")
        if self._expected is not None and not hmac.compare_digest(given, self._expected):
            return _response(b"401 Unauthorized", b"missing or wrong bearer token\n")
        if not first.startswith((b"GET /metrics ", b"GET /metrics?")):
            return _response(b"404 Not Found", b"see /metrics\n")
        return _response(b"200 OK", prometheus_client.generate_latest(self._registry))


def _response(status: bytes, body: bytes) -> bytes:
    kind = b"text/plain; version=0.0.4; charset=utf-8"
    return (
        b"HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s"
        % (status, kind, len(body), body)
    )
