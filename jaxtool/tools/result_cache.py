"""Results of identical programs, kept and joined. Correct because Execute is a pure function.

Keeps only results that do not depend on load: OK and ERROR, never a limit or a signal.
"""

import asyncio
import collections
from collections.abc import Awaitable, Callable

from jaxtool.core.types import ToolResult, ToolStatus

_KEPT = (ToolStatus.OK, ToolStatus.ERROR)


class _Shared:
    """One running execution and how many wait for it."""

    def __init__(self, task: asyncio.Task[ToolResult]):
        self.task = task
        self.waiters = 0


class ResultCache:
    """Least recently used results by code; `entries` of 0 only joins nothing and keeps nothing."""

    def __init__(self, entries: int):
        self._entries = entries
        self._kept: collections.OrderedDict[str, ToolResult] = collections.OrderedDict()
        self._running: dict[str, _Shared] = {}
        self.hits = 0
        self.joins = 0

    async def get(self, code: str, run: Callable[[str], Awaitable[ToolResult]]) -> ToolResult:
        """The kept result of `code`, the one of a call in flight, or that of `run(code)`."""
        if not self._entries:
            return await run(code)
        if code in self._kept:
            self.hits += 1
            self._kept.move_to_end(code)
            return self._kept[code]
        shared = self._running.get(code)
        if shared is None:
            shared = _Shared(asyncio.ensure_future(run(code)))
            self._running[code] = shared
            shared.task.add_done_callback(lambda _: self._running.pop(code, None))
        else:
            self.joins += 1
        result = await self._wait(shared)
        if result.status in _KEPT:
            self._kept[code] = result
            while len(self._kept) > self._entries:
                self._kept.popitem(last=False)
        return result

    async def _wait(self, shared: _Shared) -> ToolResult:
        shared.waiters += 1
        try:
            return await asyncio.shield(shared.task)
        finally:
            shared.waiters -= 1
            if not shared.waiters and not shared.task.done():
                shared.task.cancel()  # the last one who wanted it is gone
