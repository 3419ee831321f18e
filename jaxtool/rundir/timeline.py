"""What a process did when: seconds by name, what its loop does now, and spans for a trace.

Seconds and the present are always there. Spans are kept only where somebody wants a trace, the newest of them. Any thread
may write and read. Knows nothing of what the names mean.
"""

import collections
import contextlib
import dataclasses
import threading
import time
from collections.abc import Iterator

LOOP = "loop"  # track of the thread that trains
_SHORTEST_S = 1e-5  # of a span that a trace shows


@dataclasses.dataclass(frozen=True, kw_only=True)
class TimeSpan:
    """Something that went on from `start_s` to `stop_s` on the monotonic clock."""

    track: str  # spans of one track nest or follow each other
    name: str
    start_s: float
    stop_s: float


class Timeline:
    """Spans of one process.

    Args:
      keeps: spans for a trace, the newest; 0 keeps sums alone.
    """

    def __init__(self, keeps: int = 0):
        self._lock = threading.Lock()
        self._kept: collections.deque[TimeSpan] = collections.deque(maxlen=keeps)
        self._seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._open: list[tuple[str, float]] = []  # phases of the loop, the innermost last
        self._added = 0

    @property
    def is_kept(self) -> bool:
        """Whether spans are worth the making that no sum needs."""
        return bool(self._kept.maxlen)

    def add(self, track: str, name: str, start_s: float, stop_s: float | None = None) -> None:
        """A span that has ended, now unless `stop_s` says when."""
        stop_s = time.monotonic() if stop_s is None else stop_s
        with self._lock:
            self._seconds[name] += stop_s - start_s
            if self.is_kept and stop_s - start_s >= _SHORTEST_S:
                span = TimeSpan(track=track, name=name, start_s=start_s, stop_s=stop_s)
                self._added += 1
                self._kept.append(span)

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What the loop does in the block, which the training thread alone may open. Phases nest."""
        started = time.monotonic()
        self._open.append((name, started))
        try:
            yield
        finally:
            self._open.pop()
            self.add(LOOP, name, started)

    @property
    def present(self) -> tuple[str, float]:
        """The innermost phase and when it began; "" and the present time outside of all."""
        phases = tuple(self._open)
        return phases[-1] if phases else ("", time.monotonic())

    def restart(self) -> None:
        """Seconds count from here."""
        with self._lock:
            self._seconds.clear()

    def seconds(self, name: str) -> float:
        """Of all spans of this name since `restart`; those that are open do not count."""
        with self._lock:
            return self._seconds[name]

    def kept(self) -> tuple[list[TimeSpan], int]:
        """The spans for a trace, and how many earlier ones are no longer there."""
        with self._lock:
            return list(self._kept), self._added - len(self._kept)
