"""Bounded, fair admission: at most `concurrency` runs at once, waiting clients served in turn."""

import asyncio
import collections
import contextlib
import time
from collections.abc import AsyncIterator


class QueueFull(Exception):
    """No room; the client may come back after `retry_after_ms`."""

    def __init__(self, reason: str, retry_after_ms: int):
        super().__init__(f"{reason}; retry after {retry_after_ms} ms")
        self.retry_after_ms = retry_after_ms


class FairQueue:
    """First come first served within a client, round robin between clients."""

    def __init__(self, *, concurrency: int, capacity: int, max_wait_s: float):
        self._concurrency = concurrency
        self._capacity = capacity
        self._max_wait_s = max_wait_s
        self._waiting: collections.OrderedDict[str, collections.deque[asyncio.Future[None]]]
        self._waiting = collections.OrderedDict()
        self.running = 0
        self.queued = 0
        self._mean_run_s = 0.02  # moving average over about 20 runs

    @property
    def expected_wait_s(self) -> float:
        return self.queued * self._mean_run_s / self._concurrency

    @contextlib.asynccontextmanager
    async def admitted(self, client: str) -> AsyncIterator[float]:
        """Holds a place among the running; yields the seconds spent in the queue."""
        start = time.monotonic()
        await self._acquire(client)
        admitted = time.monotonic()
        try:
            yield admitted - start
        finally:
            self._mean_run_s += 0.05 * (time.monotonic() - admitted - self._mean_run_s)
            self._release()

    async def _acquire(self, client: str) -> None:
        if self.running < self._concurrency and not self.queued:
            self.running += 1
            return
        if self.queued >= self._capacity or self.expected_wait_s > self._max_wait_s:
            retry_after_ms = max(50, round(self.expected_wait_s * 500))
            raise QueueFull(f"{self.queued} runs wait already", retry_after_ms)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(client, collections.deque()).append(turn)
        self.queued += 1
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._release()  # the turn came while we were being cancelled
            else:
                self._forget(client, turn)
            raise

    def _forget(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._waiting.get(client)
        if line is not None and turn in line:
            line.remove(turn)
            self.queued -= 1
            if not line:
                del self._waiting[client]

    def _release(self) -> None:
        self.running -= 1
        while self._waiting:
            client, line = self._waiting.popitem(last=False)
            turn = line.popleft()
            self.queued -= 1
            if line:
                self._waiting[client] = line  # to the end: the next client's turn
            if not turn.done():
                self.running += 1
                turn.set_result(None)
                return
