"""A collector that never stops: jobs come in while others are answered, weights change in between.

The engine belongs to the stream's thread. Whatever others want of it is a call that the stream makes
between two windows; a window runs on one version of the weights, from start to end, and rows go on over
a change with their cache. Covered: the loop and its calls. Not covered: threads, what to ask when (see
`jaxtool.train.overlapped_rollouts`).
"""

import asyncio
import collections
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from jaxtool.rollout.collector import Collector

_Result = TypeVar("_Result")


class RolloutStream:
    """Keeps the cache rows of a collector's engine full with its jobs, the oldest first."""

    def __init__(self, collector: Collector, loop: asyncio.AbstractEventLoop):
        """`loop` will run `run`."""
        self.collector = collector
        self.version = -1  # learner step of the parameters in the engine; set it in a call
        self.idle_s = 0.0  # time without any row or paused, since the start
        self._loop = loop
        self._calls: collections.deque[tuple[Callable[[], Any], Future[Any]]] = collections.deque()
        self._wake: asyncio.Future[None] = loop.create_future()
        self._is_closing = self._is_paused = False

    async def run(self) -> None:
        """Decodes until `close`; what a row or a tool raises ends it. Nothing stays behind."""
        with self.collector.stop.noticed(lambda: self._loop.call_soon_threadsafe(self._notify)):
            await self._run()

    async def _run(self) -> None:
        try:
            while True:
                self.collector.stop.check()
                self._make_calls()
                if self._is_closing:
                    break
                if self.collector.has_work and not self._is_paused:
                    await self.collector.advance(self.version, self._wake)
                else:
                    started = time.monotonic()
                    await self._wake
                    self.idle_s += time.monotonic() - started
        finally:
            await self.collector.abandon()

    def pause(self) -> None:
        """In a call: no window runs until `resume`; tool calls go on, and calls are made."""
        self._is_paused = True

    def resume(self) -> None:
        """In a call."""
        self._is_paused = False

    def between_windows(self, call: Callable[[], _Result]) -> Future[_Result]:
        """From any thread: has `call` made in the stream's, while no window is on the device.

        Returns:
          Its result or what it raised, which does not end the stream. Stays pending if the stream ends.
        """
        future: Future[_Result] = Future()
        self._loop.call_soon_threadsafe(self._enqueue, call, future)
        return future

    def close(self) -> None:
        """From any thread: `run` returns after the window that is on the device."""
        self._loop.call_soon_threadsafe(self._close)

    def _enqueue(self, call: Callable[[], Any], future: Future[Any]) -> None:
        self._calls.append((call, future))
        self._notify()

    def _close(self) -> None:
        self._is_closing = True
        self._notify()

    def _notify(self) -> None:
        if not self._wake.done():
            self._wake.set_result(None)

    def _make_calls(self) -> None:
        if self._wake.done():
            self._wake = self._loop.create_future()
        while self._calls:
            call, future = self._calls.popleft()
            try:
                future.set_result(call())
            except Exception as error:
                future.set_exception(error)
