"""Progress of a long step, as lines on standard error."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


class Progress:
    """Says on standard error how far a step is, at most every two seconds, and once at its end."""

    def __init__(self, what: str, total: int | None = None, start: int = 0):
        self._what, self._total, self._first = what, total, start
        self._began = self._said = time.monotonic()

    def over(self, items: Iterable[_Item]) -> Iterator[_Item]:
        done = self._first
        for item in items:
            yield item
            done += 1
            if done % 256 == 0 and time.monotonic() - self._said > 2:
                self._said = time.monotonic()
                self._say(done)
        self._say(done)

    def _say(self, done: int) -> None:
        speed = (done - self._first) / max(time.monotonic() - self._began, 1e-3)
        line = f"{self._what}: {done:,}"
        if self._total:
            left = (self._total - done) / max(speed, 1e-3)
            line += f" of {self._total:,} ({100 * done / self._total:.0f} %), {left:.0f} s left"
        print(f"search_server: {line}, {speed:,.0f}/s", file=sys.stderr, flush=True)
