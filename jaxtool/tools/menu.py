"""The tools of a run by name, and the sessions that a trajectory opens with them. Knows no renderer.

Whatever a tool does, a call ends in a result or in ToolUnavailable, at its deadline at the latest:

1. a name, an argument or a type that the tool does not have: the call is not made (`Menu.checked`);
2. an exception: an error with type and message, exit() included;
3. the deadline: the call is cancelled, and is an error as well;
4. anything that is no ToolResult: an error;
5. ToolUnavailable: passed on; it masks the trajectory.

The code tool is our own: what its client raises otherwise is a bug, and ends the run. Not covered: a tool that
blocks the loop in which it is called. `Function` has threads and processes for these.
"""

import asyncio
import dataclasses
import math
import re
import time
from collections.abc import Sequence

from jaxtool.core.calls import Call, InvalidCall, ToolSpec
from jaxtool.core.types import Problem, ToolCall, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.formats.signatures import Signatures
from jaxtool.tools.base import CodeRunner, Retrying, Tool, ToolSession
from jaxtool.tools.call_figures import CallFigures, fresh
from jaxtool.tools.code_tool import CodeTool

_CLOSE_TIMEOUT_S = 10.0
_CANCEL_TIMEOUT_S = 5.0  # that a cancelled call has to clean up
_MAX_TEXT_CHARS = 1 << 20  # of each text of a result; renderers show far less
# Names are parts of metrics, such as tools/calls_count/search.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]*")
_TIME_LIMITS = (ToolStatus.CPU_LIMIT, ToolStatus.WALL_LIMIT)


class Menu:
    """The tools that a policy may call."""

    def __init__(self, tools: Sequence[Tool] = ()):
        check_names([tool.spec for tool in tools])
        self._tools = {tool.spec.name: tool for tool in tools}
        self._signatures = Signatures([tool.spec for tool in tools])
        self._places: dict[str, asyncio.Semaphore] = {}
        self._figures = fresh(tuple(self._tools))
        self.last_trouble = ""  # why a trajectory was masked: the tool and what it said
        self._late: set[asyncio.Task[ToolResult]] = set()  # cancelled calls that clean up

    @classmethod
    def of_code(cls, runner: CodeRunner | None) -> "Menu":
        """The code tool alone; without a runner, no tool."""
        return cls([] if runner is None else [CodeTool(runner)])

    @property
    def specs(self) -> tuple[ToolSpec, ...]:
        return tuple(tool.spec for tool in self._tools.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._tools)

    def checked(self, call: Call) -> Call | InvalidCall:
        """The call, or why there can be no such call."""
        return self._signatures.call(call.tool, dict(call.arguments))

    def count_invalid(self, call: InvalidCall) -> None:
        """Counts a call that was not made, if it names a tool."""
        if call.tool in self._tools:
            self._figures[call.tool].invalid += 1

    def count_read_back(self, calls: Sequence[ToolCall], invalid: Sequence[str]) -> None:
        """Counts the calls of an answer that an earlier process made.

        Args:
          invalid: tools whose names calls had that were not made.
        """
        for call in calls:
            if call.tool in self._figures:
                self._count(call.tool, call.result, call.result.wall_ms / 1000)
        for name, tool in self._tools.items():
            programs = sum(call.tool == name for call in calls)
            if programs and isinstance(tool, CodeTool):
                tool.count_earlier(programs)
        for tool in invalid:
            if tool in self._figures:
                self._figures[tool].invalid += 1

    def observation_tokens(self, name: str) -> int | None:
        """Tokens that what a tool says may have; None: the renderer's limit holds."""
        tool = self._tools.get(name)
        return None if tool is None else tool.spec.max_observation_tokens

    def take_figures(self) -> dict[str, CallFigures]:
        """Figures of the calls since the last time, by tool."""
        taken, self._figures = self._figures, fresh(self.names)
        for name, tool in self._tools.items():
            if isinstance(tool, Retrying):
                taken[name].retries = tool.take_retries()
        return dict(taken)

    def sessions(self, problem: Problem, *key: str | int) -> "Sessions":
        """Those of one trajectory; none is open yet.

        Args:
          key: names the trajectory: (0, "train", 3, "problem-17", 5) is known to tools as "0/train/3/problem-17/5".
        """
        return Sessions(self, problem, "/".join(map(str, key)))

    async def run(self, call: Call, sessions: "Sessions") -> ToolResult:
        """One call, bounded and counted."""
        name = call.tool
        tool = self._tools[name]
        if name not in self._places:
            self._places[name] = asyncio.Semaphore(tool.spec.max_concurrency)
        async with self._places[name]:
            started = time.monotonic()
            try:
                result = await self._bounded(tool, sessions, call)
            except ToolUnavailable as error:
                self._figures[name].unavailable += 1
                self.last_trouble = f"tool {name!r}: {error}"
                raise
        self._count(name, result, time.monotonic() - started)
        return result

    def _count(self, name: str, result: ToolResult, latency_s: float) -> None:
        figures = self._figures[name]
        figures.latencies_s.append(latency_s)
        figures.deadlines += result.status in _TIME_LIMITS
        figures.errors += result.status is not ToolStatus.OK and result.status not in _TIME_LIMITS

    async def close(self) -> None:
        """Closes every tool; one that raises or hangs is left."""
        if self._late:
            await asyncio.wait(self._late, timeout=_CANCEL_TIMEOUT_S)
        await asyncio.gather(
            *(_closed(tool) for tool in self._tools.values()), return_exceptions=True
        )

    async def _bounded(self, tool: Tool, sessions: "Sessions", call: Call) -> ToolResult:
        """The call's result; at the deadline it is cancelled, and left behind if that does not end it."""
        deadline_s = tool.spec.deadline_s
        work = asyncio.ensure_future(_made(tool, sessions, call))
        try:
            await asyncio.wait({work}, timeout=None if math.isinf(deadline_s) else deadline_s)
        except asyncio.CancelledError:
            work.cancel()
            await asyncio.wait({work}, timeout=_CANCEL_TIMEOUT_S)
            raise
        if work.done():
            return work.result()
        work.cancel()
        self._late.add(work)
        work.add_done_callback(self._forget)
        return _late(deadline_s)

    def _forget(self, late: asyncio.Task[ToolResult]) -> None:
        self._late.discard(late)
        if not late.cancelled():
            late.exception()  # has been seen


class Sessions:
    """What one trajectory calls. A tool's session opens at its first call."""

    def __init__(self, menu: Menu, problem: Problem, key: str):
        self._menu = menu
        self._problem = problem
        self._key = key
        self._open: dict[str, ToolSession] = {}

    @property
    def is_any_open(self) -> bool:
        return bool(self._open)

    async def call(self, call: Call) -> ToolResult:
        """What came of a call that is in the menu. Raises ToolUnavailable for trouble that is not the call's."""
        return await self._menu.run(call, self)

    async def of(self, tool: Tool) -> ToolSession:
        """The session with a tool, opened where it is not."""
        session = self._open.get(tool.spec.name)
        if session is None:
            session = self._open[tool.spec.name] = await tool.open(self._problem, self._key)
        return session

    async def close(self) -> None:
        """Ends what is open. Never raises and never hangs: a session that cannot be closed is left."""
        sessions, self._open = list(self._open.values()), {}
        await asyncio.gather(*(_closed(session) for session in sessions), return_exceptions=True)


def check_names(specs: Sequence[ToolSpec], where: str = "RlConfig.tools") -> None:
    """Raises ValueError if two tools have one name, or one has a name that no metric can have.

    Args:
      where: the setting that names them.
    """
    names = [spec.name for spec in specs]
    for name in names:
        if not _NAME.fullmatch(name):
            raise ValueError(
                f"{where}: a tool is called {name!r}: a name has letters, digits, _, ., + and -, and begins "
                "with a letter, a digit or _"
            )
        if names.count(name) > 1:
            raise ValueError(f"{where}: two tools are called {name!r}: set the name of one")


async def _made(tool: Tool, sessions: Sessions, call: Call) -> ToolResult:
    try:
        session = await sessions.of(tool)
        result = await session.call(call.arguments)
    except ToolUnavailable:
        raise
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return _raised(error)  # the tool's own
    except (Exception, SystemExit) as error:
        if isinstance(tool, CodeTool):
            raise
        return _raised(error)
    if not isinstance(result, ToolResult):
        return _error("TypeError", f"the tool returned {type(result).__name__}, no ToolResult")
    return _readable(result)


def _late(deadline_s: float) -> ToolResult:
    message = f"TimeoutError: no result after {deadline_s:g} s"
    return ToolResult(status=ToolStatus.WALL_LIMIT, stderr=message, error_type="TimeoutError")


def _raised(error: BaseException) -> ToolResult:
    try:
        message = str(error)
    except Exception:  # its own __str__ raises
        message = ""
    return _error(type(error).__name__, message)


def _error(kind: str, message: str) -> ToolResult:
    text = f"{kind}: {message}" if message else kind
    return _readable(ToolResult(status=ToolStatus.ERROR, stderr=text, error_type=kind))


def _readable(result: ToolResult) -> ToolResult:
    """The result with texts that a tokenizer takes: bounded, and without surrogates."""
    texts = {
        name: getattr(result, name)
        for name in ("stdout", "stderr", "last_value", "error_type", "note")
    }
    clean = {
        name: str(text)[:_MAX_TEXT_CHARS].encode("utf-8", "replace").decode("utf-8")
        for name, text in texts.items()
    }
    is_cut = any(len(text) > _MAX_TEXT_CHARS for text in texts.values())
    return dataclasses.replace(result, **clean, is_truncated=result.is_truncated or is_cut)


async def _closed(opened: ToolSession | Tool) -> None:
    async with asyncio.timeout(_CLOSE_TIMEOUT_S):
        try:
            await opened.close()
        except (Exception, SystemExit):
            return
