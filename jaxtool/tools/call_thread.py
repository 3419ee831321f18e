"""Runs a user's function where nothing that it does ends or hangs the run.

A plain function gets a thread of its own, an async one a loop in a thread that all its calls share, so that
clients which belong to a loop work. A call that is given up is left behind: Python cannot end a thread. A
loop that stands still is left behind with its thread, and the next call begins another one.

Not covered, because threads share a process: os._exit, a crash in C, memory, and C code that never lets
other threads run, such as a regular expression that never ends. `call_process` covers these.
"""

import asyncio
import dataclasses
import inspect
import json
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable

_MAX_LEFT_BEHIND = 32  # threads that hang; more, and the tool counts as broken
_STANDSTILL_S = 0.5  # a loop that answers nothing for so long stands still


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What came of a call, as it travels between threads and processes."""

    text: str = ""
    error_type: str = ""  # "": none
    is_truncated: bool = False
    is_unavailable: bool = False

    def result(self) -> ToolResult:
        """As the collector takes it. Raises ToolUnavailable if the function did."""
        if self.is_unavailable:
            raise ToolUnavailable(self.text)
        if self.error_type:
            return ToolResult(
                status=ToolStatus.ERROR,
                stderr=self.text,
                error_type=self.error_type,
                is_truncated=self.is_truncated,
            )
        return ToolResult(status=ToolStatus.OK, stdout=self.text, is_truncated=self.is_truncated)


def outcome_of_value(value: Any, max_chars: int) -> Outcome:
    """A returned value as text: a str as it is, numbers, lists and dicts as JSON, anything else refused."""
    if isinstance(value, str):
        text = value
    elif value is None or isinstance(value, bool | int | float | list | dict | tuple):
        text = "" if value is None else json.dumps(value, ensure_ascii=False, default=str)
    else:
        kind = type(value).__name__
        message = f"TypeError: the tool returned {kind}, which is neither a text nor JSON"
        return Outcome(message, "TypeError")
    # Cut before anything else: what is cut may be larger than what anyone can encode.
    is_cut = len(text) > max_chars
    return Outcome(_clean(text[:max_chars]), is_truncated=is_cut)


def outcome_of_error(error: BaseException, max_chars: int) -> Outcome:
    """An exception, of any kind, as text."""
    kind = type(error).__name__
    try:
        message = str(error)
    except BaseException:  # an exception of the user's whose __str__ raises
        message = ""
    if isinstance(error, ToolUnavailable):
        return Outcome(_clean(message[:max_chars]), kind, is_unavailable=True)
    text = f"{kind}: {message}" if message else kind
    return Outcome(_clean(text[:max_chars]), kind, is_truncated=len(text) > max_chars)


def _clean(text: str) -> str:
    """`text` without surrogates, which no tokenizer takes."""
    return str(text).encode("utf-8", "replace").decode("utf-8")


class CallThread:
    """Calls one function. Used from one asyncio loop."""

    def __init__(self, function: Callable[..., Any], max_chars: int):
        self._function = function
        self._max_chars = max_chars
        called = function if inspect.isroutine(function) else type(function).__call__
        self._is_async = inspect.iscoroutinefunction(called)
        self._left_behind: set[threading.Thread] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread: threading.Thread | None = None
        self._is_suspect = False

    async def call(self, arguments: Mapping[str, Any]) -> Outcome:
        """What came of it. Cancelled, it leaves behind what runs.

        Raises:
          ToolUnavailable: too many calls hang.
        """
        self._left_behind = {thread for thread in self._left_behind if thread.is_alive()}
        if len(self._left_behind) >= _MAX_LEFT_BEHIND:
            raise ToolUnavailable(f"{len(self._left_behind)} calls hang and were left behind")
        if self._is_async:
            return await self._in_loop(arguments)
        return await self._in_thread(arguments)

    async def close(self) -> None:
        """What still runs is left behind; daemon threads do not keep the process."""
        loop, self._loop = self._loop, None
        if loop is not None and not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)  # when it comes to itself

    async def _in_thread(self, arguments: Mapping[str, Any]) -> Outcome:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outcome] = loop.create_future()

        def settle(outcome: Outcome) -> None:
            if not done.done():
                done.set_result(outcome)

        def work() -> None:
            outcome = self._plain(arguments)
            try:
                loop.call_soon_threadsafe(settle, outcome)
            except RuntimeError:  # the run has ended, and with it the loop
                return

        thread = threading.Thread(target=work, daemon=True, name="tool call")
        thread.start()
        try:
            return await done
        except asyncio.CancelledError:
            self._left_behind.add(thread)
            raise

    def _plain(self, arguments: Mapping[str, Any]) -> Outcome:
        try:
            return outcome_of_value(self._function(**arguments), self._max_chars)
        except BaseException as error:  # exit() and KeyboardInterrupt(): they end the call alone
            return outcome_of_error(error, self._max_chars)

    async def _in_loop(self, arguments: Mapping[str, Any]) -> Outcome:
        if self._loop is not None and self._is_suspect and await self._stands_still(self._loop):
            if self._loop_thread is not None:
                self._left_behind.add(self._loop_thread)
            await self.close()
        if self._loop is None or not (self._loop_thread and self._loop_thread.is_alive()):
            self._begin_loop()
        assert self._loop is not None
        work = asyncio.run_coroutine_threadsafe(self._awaited(arguments), self._loop)
        try:
            return await asyncio.wrap_future(work)
        except asyncio.CancelledError:
            self._is_suspect = True  # what ran too long may hold the loop: the next call looks
            raise

    async def _awaited(self, arguments: Mapping[str, Any]) -> Outcome:
        try:
            value = self._function(**arguments)
            if isinstance(value, Awaitable):
                value = await value
            return outcome_of_value(value, self._max_chars)
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return outcome_of_error(error, self._max_chars)
        except BaseException as error:
            return outcome_of_error(error, self._max_chars)

    def _begin_loop(self) -> None:
        self._is_suspect = False
        self._loop = asyncio.new_event_loop()
        # Of what is left behind nobody hears.
        self._loop.set_exception_handler(lambda loop, context: None)
        self._loop_thread = threading.Thread(
            target=_run_loop, args=(self._loop,), daemon=True, name="tool loop"
        )
        self._loop_thread.start()

    async def _stands_still(self, loop: asyncio.AbstractEventLoop) -> bool:
        answered = asyncio.Event()
        here = asyncio.get_running_loop()
        try:
            loop.call_soon_threadsafe(lambda: here.call_soon_threadsafe(answered.set))
            async with asyncio.timeout(_STANDSTILL_S):
                await answered.wait()
        except (TimeoutError, RuntimeError):
            return True
        self._is_suspect = False
        return False


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        # What was cancelled gets one turn to end.
        loop.call_soon(loop.stop)
        loop.run_forever()
        loop.close()
