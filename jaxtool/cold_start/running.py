"""Runs the programs of a trace in the sandbox and puts what they printed into it.

The output is what a rollout's policy would read: shortened, errors by their last line, tags defused. Covered:
each program from nothing, or the programs of a trace in one session. Not covered: tools other than Python.
"""

import dataclasses
from typing import Literal, Protocol, get_args

from jaxtool.cold_start.traces import Fault, Segment, Trace, check_renderer
from jaxtool.core.calls import CODE, PYTHON
from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable
from jaxtool.renderers.observation import defused, shown_output
from jaxtool.renderers.renderer import Renderer, observation_text
from jaxtool.renderers.tool_turn import is_tag
from jaxtool.tools.sandbox_session import BlockResult, SessionLost

Outputs = Literal["must_equal", "replace"]
State = Literal["stateless", "session"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunSettings:
    """How programs are run, and what of their outputs is wanted."""

    # "must_equal": a row falls out whose written output is not what the program prints, blanks at line
    # ends aside: what the text goes on with rests on it. "replace": the printed one takes its place.
    outputs: Outputs = "must_equal"
    # "stateless": each program starts from nothing, as ReTool's. "session": those of a row share names.
    state: State = "stateless"
    # False: a row with a program that raises falls out; ReTool planted no self-correction (section 2.2).
    # Programs that reach a limit always do: another machine would print something else.
    keeps_errors: bool = False

    def __post_init__(self) -> None:
        for name, known in (("outputs", get_args(Outputs)), ("state", get_args(State))):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"RunSettings.{name}={value!r} must be one of {', '.join(known)}")


class BlockSession(Protocol):
    """A stateful interpreter, as one trace uses it."""

    async def execute(self, code: str) -> BlockResult: ...

    async def close(self) -> None: ...


class Sandbox(Protocol):
    """What runs programs; `tools.sandbox_client.SandboxClient` is one."""

    async def execute(self, code: str) -> ToolResult: ...

    async def create_session(self) -> BlockSession: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ran:
    """A trace with the outputs of its programs."""

    trace: Trace
    replaced: int  # outputs that were written otherwise


async def run_trace(
    trace: Trace, sandbox: Sandbox, renderer: Renderer, settings: RunSettings
) -> Ran:
    """The trace as its programs make it.

    Raises:
      Fault: a program failed, or an output is not what was written.
      ToolUnavailable: the sandbox failed after all retries; nothing is known of the row.
    """
    others = sorted({call.tool for call in trace.calls} - {PYTHON})
    if others:
        raise Fault("not_runnable", f"calls {others[0]!r}, and only {PYTHON} is run here")
    if settings.state == "stateless" or not trace.calls:
        results = [await sandbox.execute(code) for code in _programs(trace, renderer)]
    else:
        results = await _in_session(_programs(trace, renderer), sandbox)
    return _with_outputs(trace, results, renderer, settings)


def shown(result: ToolResult, renderer: Renderer) -> str:
    """What a policy reads of a result, without the tags around it."""
    tool = check_renderer(renderer)
    if tool.is_template_turn:
        return defused(shown_output(result, tool), [mark for mark in tool.marks if is_tag(mark)])
    before, _, after = tool.observation_of(PYTHON).partition("{output}")
    text = observation_text(result, renderer)
    return text[len(before) : len(text) - len(after)]


def _programs(trace: Trace, renderer: Renderer) -> list[str]:
    return [renderer.to_run(call).arguments[CODE] for call in trace.calls]


async def _in_session(programs: list[str], sandbox: Sandbox) -> list[ToolResult]:
    """The results of programs that share names; a session that is lost is made anew once.

    Raises:
      Fault: a program ended its session.
    """
    for attempt in (1, 2):
        session = await sandbox.create_session()
        results = []
        try:
            for program in programs:
                block = await session.execute(program)
                if block.is_lost:
                    raise Fault(
                        "program_limit", f"a program ended its session: {block.result.status}"
                    )
                results.append(block.result)
            return results
        except SessionLost:
            if attempt == 2:
                raise
        finally:
            await session.close()
    raise ToolUnavailable("no session")  # not reached: the second attempt returns or raises


def _with_outputs(
    trace: Trace, results: list[ToolResult], renderer: Renderer, settings: RunSettings
) -> Ran:
    segments, replaced = [], 0
    for segment, result in zip(trace.segments[:-1], results, strict=True):
        printed = _kept_output(segment, result, renderer, settings)
        replaced += not _same(printed, segment.output)
        segments.append(dataclasses.replace(segment, output=printed))
    if replaced and settings.outputs == "must_equal":
        at = next(
            i for i, s in enumerate(segments) if not _same(s.output, trace.segments[i].output)
        )
        raise Fault(
            "other_output",
            f"call {at + 1}: {trace.segments[at].output[:80]!r} is written, and the program prints "
            f"{segments[at].output[:80]!r}",
        )
    return Ran(trace=Trace(segments=(*segments, trace.segments[-1])), replaced=replaced)


def _kept_output(
    segment: Segment, result: ToolResult, renderer: Renderer, settings: RunSettings
) -> str:
    printed = shown(result, renderer)
    if result.status is ToolStatus.ERROR and not settings.keeps_errors:
        raise Fault("program_failed", f"a program raised: {printed[:200]}")
    if result.status not in (ToolStatus.OK, ToolStatus.ERROR):
        raise Fault("program_limit", f"a program ended by {result.status}: {printed[:200]}")
    if not printed.strip():  # blanks alone, which no turn may be
        raise Fault("blank_output", "a program printed nothing but blanks")
    return printed


def _same(one: str, other: str) -> bool:
    return _without_line_ends(one) == _without_line_ends(other)


def _without_line_ends(text: str) -> list[str]:
    return [line.rstrip() for line in text.strip().split("\n")]
