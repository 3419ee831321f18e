"""Counters of a server as Prometheus text, by `prometheus_client`."""

from collections.abc import Callable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)


class Metrics:
    """Counters of one server; a registry of its own."""

    def __init__(self, num_documents: int, queued: Callable[[], float]):
        self._registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        self.requests = Counter(
            "search_requests", "Requests by HTTP status", ["status"], registry=registry
        )
        self.queries = Counter("search_queries", "Queries answered", registry=registry)
        self.empty = Counter("search_empty", "Queries without a passage", registry=registry)
        self.refused = Counter(
            "search_refused", "Requests refused, by reason", ["reason"], registry=registry
        )
        self.seconds = Histogram(
            "search_request_seconds",
            "From the last byte of a request to its answer",
            buckets=_SECONDS,
            registry=registry,
        )
        Gauge("search_documents", "Passages in the index", registry=registry).set(num_documents)
        waiting = Gauge("search_queued_queries", "Queries admitted, unanswered", registry=registry)
        waiting.set_function(queued)

    def text(self) -> bytes:
        return generate_latest(self._registry)
