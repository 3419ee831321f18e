"""Counters, histograms and gauges as Prometheus text, and a page that serves them.

The text format is written here, so that a server needs no Prometheus library.
"""

import asyncio
import bisect
import collections
import contextlib
from collections.abc import Callable

_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0)
_REQUEST_TIMEOUT_S = 5.0


class Histogram:
    """Cumulative buckets, sum and count of seconds."""

    def __init__(self) -> None:
        self._counts = [0] * (len(_BUCKETS_S) + 1)
        self._sum = 0.0

    def observe(self, seconds: float) -> None:
        self._counts[bisect.bisect_left(_BUCKETS_S, seconds)] += 1
        self._sum += seconds

    def lines(self, name: str) -> list[str]:
        lines, total = [f"# TYPE {name} histogram"], 0
        for bound, count in zip((*_BUCKETS_S, "+Inf"), self._counts, strict=True):
            total += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {total}')
        return [*lines, f"{name}_sum {self._sum:.6f}", f"{name}_count {total}"]


class Metrics:
    """All metrics of one server. `gauges` are read when the page is asked for."""

    def __init__(self) -> None:
        self.by_status: collections.Counter[str] = collections.Counter()
        self.by_error: collections.Counter[str] = collections.Counter()
        self.queue_s = Histogram()
        self.cpu_s = Histogram()
        self.wall_s = Histogram()
        self.gauges: dict[str, Callable[[], float]] = {}

    def text(self) -> str:
        lines = ["# TYPE sandbox_executions_total counter"]
        lines += [
            f'sandbox_executions_total{{status="{status}"}} {count}'
            for status, count in sorted(self.by_status.items())
        ]
        lines.append("# TYPE sandbox_refusals_total counter")
        lines += [
            f'sandbox_refusals_total{{code="{code}"}} {count}'
            for code, count in sorted(self.by_error.items())
        ]
        for name, histogram in (
            ("sandbox_queue_seconds", self.queue_s),
            ("sandbox_cpu_seconds", self.cpu_s),
            ("sandbox_wall_seconds", self.wall_s),
        ):
            lines += histogram.lines(name)
        for name, read in self.gauges.items():
            lines += [f"# TYPE {name} gauge", f"{name} {read():g}"]
        return "\n".join(lines) + "\n"


async def serve_page(metrics: Metrics, address: str) -> asyncio.Server:
    """Answers GET /metrics at host:port, anything else with 404."""

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _REQUEST_TIMEOUT_S)
            is_known = request.startswith(b"GET /metrics ")
            body = metrics.text().encode() if is_known else b"see /metrics\n"
            status = b"200 OK" if is_known else b"404 Not Found"
            writer.write(
                b"HTTP/1.1 %s\r\nContent-Type: text/plain; version=0.0.4\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%s" % (status, len(body), body)
            )
            await writer.drain()
        writer.close()

    host, _, port = address.rpartition(":")
    return await asyncio.start_server(reply, host.strip("[]"), int(port), limit=8192)
