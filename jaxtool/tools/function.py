"""A user's function as a tool: its schema from its signature and docstring, its errors as observations.

  # my_tools.py
  def convert(value: float, unit: Literal["km", "mi"]) -> str:
      '''Converts a distance from kilometres or miles into the other.'''
      return f"{value / 1.609344:.3f} mi" if unit == "km" else f"{value * 1.609344:.3f} km"

In a run file `function.Function.call = "my_tools:convert"`, or `--tool my_tools:convert` on the command line.
What it raises is an observation with type and message. What takes too long ends at the deadline, and is one as
well. ToolUnavailable alone masks the trajectory. A function may have the attribute `known_answers`, pairs of
arguments and the text that must come of them, which is asked before a run.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Mapping
from typing import Any, Literal

from jaxtool.core.calls import ToolSpec
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, ToolResult
from jaxtool.tools.base import CodeRunner
from jaxtool.tools.call_process import CallProcesses
from jaxtool.tools.call_thread import CallThread
from jaxtool.tools.imported import imported
from jaxtool.tools.signature import KEY, PROBLEM, STATE, described_in, given_to, parameters_of

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Function:
    """A function of any importable module. It is imported when the run is checked."""

    call: str  # "module:function"
    name: str = ""  # as the policy writes it; "": the function's own
    description: str = ""  # for the prompt; "": the first paragraph of the docstring
    deadline_s: float = 30.0  # of a call, from when the function begins
    max_concurrency: int = 16  # calls at a time
    max_result_chars: int = 16384  # longer results are cut there
    max_observation_tokens: int | None = None  # head kept; None: the renderer's max_output_chars
    # "process": worker processes, which can be killed; needed where the function may crash, or hang in C.
    isolation: Literal["thread", "process"] = "thread"

    def __post_init__(self) -> None:
        check_range(self, "deadline_s", above=0)
        check_range(self, "max_concurrency", "max_result_chars", least=1)
        if self.max_observation_tokens is not None:
            check_range(self, "max_observation_tokens", least=1)
        if self.isolation not in ("thread", "process"):
            raise ValueError(f"{self.isolation=} must be 'thread' or 'process'")

    @property
    def uses_sandbox(self) -> bool:
        return False

    @property
    def spec(self) -> ToolSpec:
        """Raises ValueError, in one line, if the function is no tool."""
        return _spec(self)

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        """Arguments and the text that must come of them."""
        return _known_answers(imported(self.call), self.call)

    def open(self, runner: CodeRunner | None = None) -> "FunctionTool":
        del runner
        return FunctionTool(self)


@functools.lru_cache
def _spec(config: Function) -> ToolSpec:
    function, call = imported(config.call), config.call
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ValueError(f"tool {call!r} yields: return one text or JSON value")
    name = config.name or call.rpartition(":")[2].rpartition(".")[2]
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"tool {call!r}: the name {name!r} must be letters, digits, _ and -, at most 64"
        )
    if config.isolation == "process" and STATE in given_to(function, call):
        raise ValueError(
            f"tool {call!r} takes {STATE}, which lasts in one process only: set Function.isolation = "
            "'thread'"
        )
    return ToolSpec(
        name=name,
        description=config.description or described_in(function)[0],
        parameters=parameters_of(function, f"tool {call!r}"),
        deadline_s=config.deadline_s,
        max_concurrency=config.max_concurrency,
        max_observation_tokens=config.max_observation_tokens,
    )


def _known_answers(function: Any, call: str) -> list[tuple[Mapping[str, Any], str]]:
    pairs = getattr(function, "known_answers", ())
    shape = f"tool {call!r}: known_answers must be pairs of a dict of arguments and a text"
    try:
        found = [(arguments, expected) for arguments, expected in pairs]
    except (TypeError, ValueError):
        raise ValueError(shape) from None
    for arguments, expected in found:
        if not isinstance(arguments, Mapping) or not isinstance(expected, str):
            raise ValueError(f"{shape}, got ({arguments!r:.80}, {expected!r:.80})")
    return found


class FunctionTool:
    """An open Function."""

    def __init__(self, config: Function):
        function = imported(config.call)
        self.spec = config.spec
        self._given = given_to(function, config.call)
        self._is_process = config.isolation == "process"
        self._calls: CallThread | CallProcesses
        if self._is_process:
            self._calls = CallProcesses(config.call, config.max_result_chars)
        else:
            self._calls = CallThread(function, config.max_result_chars)

    async def open(self, problem: Problem, key: str) -> "_FunctionSession":
        of_problem = dataclasses.asdict(problem) if self._is_process else problem
        values = {PROBLEM: of_problem, KEY: key, STATE: {}}
        return _FunctionSession(self._calls, {name: values[name] for name in self._given})

    async def close(self) -> None:
        await self._calls.close()


class _FunctionSession:
    def __init__(self, calls: CallThread | CallProcesses, given: Mapping[str, Any]):
        self._calls = calls
        self._given = given

    async def call(self, arguments: Mapping[str, Any]) -> ToolResult:
        outcome = await self._calls.call({**arguments, **self._given})
        return outcome.result()

    async def close(self) -> None:
        return None
