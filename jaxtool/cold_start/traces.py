"""A demonstration as segments: what the policy wrote up to each call, the call, what came back.

Rows are read by the reader that a rollout would use (`Renderer.reader`), and then by stricter rules: a
policy may write a stray tag, a demonstration may not teach one. Worked example, in ReTool's tags:

    First.<code>print(6 * 7)</code>        Segment(text="First.<code>print(6 * 7)</code>",
    <interpreter>                                  call=Call.python("print(6 * 7)"), output="42")
    42
    </interpreter>
    <answer>\\boxed{42}</answer>            Segment(text="<answer>\\boxed{42}</answer>", call=None)

Covered: calls by tags with their outputs in the text or as turns, fenced programs, calls by name in turns
of the chat template. Not covered: rows with a second turn of the user; what programs print (`running`).
"""

import ast
import dataclasses
import re
import warnings
from collections.abc import Sequence

from jaxtool.core.calls import CODE, PYTHON, Call
from jaxtool.renderers.conversations import Turn
from jaxtool.renderers.policy_text import Stop
from jaxtool.renderers.renderer import Renderer
from jaxtool.renderers.tool_format import TAGS, ToolFormat

MOST_CALLS = 256
MOST_PROGRAM_CHARS = 32 << 10


class Fault(Exception):
    """Why a row falls out: `reason` is a word of the report, the message one line with the particulars."""

    def __init__(self, reason: str, message: str):
        super().__init__(" ".join(message.split()))
        self.reason = reason


@dataclasses.dataclass(frozen=True, kw_only=True)
class Segment:
    """What the policy wrote between two outputs."""

    text: str  # with the end of its call
    call: Call | None = None  # None: the last one
    output: str = ""  # of the call, without tags and line ends around it


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trace:
    """A response in segments; all but the last end in a call that was answered."""

    segments: tuple[Segment, ...]

    @property
    def calls(self) -> list[Call]:
        return [segment.call for segment in self.segments if segment.call is not None]

    @property
    def policy_text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    @property
    def final_text(self) -> str:
        return self.segments[-1].text


def check_renderer(renderer: Renderer) -> ToolFormat:
    """The renderer's form of calls. Raises ValueError if it cannot call Python."""
    tool = renderer.tool
    if tool is None or PYTHON not in tool.tools:
        raise ValueError(
            f"renderer {renderer.name!r} calls no {PYTHON}: name one that does, such as retool"
        )
    return tool


def holds_outputs_in_text(renderer: Renderer) -> bool:
    """Whether a response is one text with its outputs in it; otherwise these are turns of their own."""
    tool = renderer.tool
    if tool is None or renderer.ends_by_turn:
        return tool is None
    return all(shape.split("{output}")[1].strip() for shape in tool.observations)


def read_trace(turns: Sequence[Turn], renderer: Renderer) -> Trace:
    """The trace of the turns behind the question.

    Raises:
      Fault: a rule of the form does not hold; `reason` says which.
    """
    segments: list[Segment] = []
    for number, turn in enumerate(turns):
        following = turns[number + 1] if number + 1 < len(turns) else None
        if turn.role == "user":
            raise Fault(
                "user_turn", f"{turn.key} is a second turn of the user, which is not checked"
            )
        if turn.role == "tool":
            segments[-1] = dataclasses.replace(
                segments[-1], output=_without_tags(turn.text, renderer)
            )
            continue
        is_answered = following is not None and following.role == "tool"
        segments += _segments_of(turn, is_answered, not segments, renderer)
        if len(segments) > MOST_CALLS:
            raise Fault("too_many_calls", f"more than {MOST_CALLS} calls")
    trace = Trace(segments=tuple(segments))
    _check_tags(trace, renderer)
    for call in trace.calls:
        if call.tool == PYTHON:
            check_program(call.arguments[CODE])
    if answer_of(trace, renderer) is None:
        raise Fault("no_answer", f"no answer of style {renderer.answer.style} in the last segment")
    return trace


def answer_of(trace: Trace, renderer: Renderer) -> str | None:
    """The answer that a judge would be given."""
    prefix = "" if trace.calls else renderer.response_prefix
    return renderer.answer.extract(prefix + trace.final_text)


def messages_of(trace: Trace, renderer: Renderer) -> list[dict[str, str]]:
    """The turns behind the question as a demonstration's file has them: what a rollout would hold."""
    tool = check_renderer(renderer)
    if holds_outputs_in_text(renderer):
        text = "".join(
            segment.text
            + tool.observation_of(segment.call.tool).replace("{output}", segment.output)
            if segment.call is not None
            else segment.text
            for segment in trace.segments
        )
        return [{"role": "assistant", "content": text}]
    messages = []
    for segment in trace.segments:
        messages.append({"role": "assistant", "content": segment.text})
        if segment.call is not None:
            messages.append({"role": "tool", "content": segment.output})
    return messages


def check_program(code: str) -> None:
    """Raises Fault unless `code` is Python of bounded length. Nothing is run."""
    if len(code) > MOST_PROGRAM_CHARS:
        raise Fault("no_program", f"a program of {len(code)} characters, over {MOST_PROGRAM_CHARS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes: the program's own business
            ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise Fault("no_program", f"no Python: {error or type(error).__name__}") from None


def _segments_of(
    turn: Turn, is_answered: bool, is_first: bool, renderer: Renderer
) -> list[Segment]:
    """The segments of one assistant turn; only the last one's output may stand in a turn of its own."""
    text, at = turn.text, 0
    found: list[Segment] = []
    while len(found) <= MOST_CALLS:
        stop = _next_stop(text[at:], is_first and not found, renderer)
        if stop is None or stop.kind == "answer":
            if is_answered:
                raise Fault(
                    "output_without_call", f"{turn.key} is answered by a tool and holds no call"
                )
            return [*found, _last_segment(text, at, stop, renderer)]
        end = at + stop.end
        call = _call_of(stop)
        written = _output_at(text, end, call, renderer)
        if written is None and is_answered and not text[end:].strip():
            return [*found, Segment(text=text[at:].rstrip(), call=call)]
        if written is None:
            raise Fault("call_without_output", f"no output follows the call {_shown(call)}")
        found.append(Segment(text=text[at:end], call=call, output=written[1].strip("\n")))
        at = written[0]
    return found


def _next_stop(text: str, is_first: bool, renderer: Renderer) -> Stop | None:
    reader = renderer.reader(is_first=is_first)
    reader.feed(text.encode("utf-8", "replace"))
    return reader.next_stop(is_end=renderer.ends_by_turn)


def _call_of(stop: Stop) -> Call:
    if isinstance(stop.call, Call) and not stop.unread:
        return stop.call
    if isinstance(stop.call, Call):
        raise Fault("several_calls", f"{stop.unread + 1} calls in one turn: only one would be made")
    reason = "nothing stands between the tags" if stop.call is None else stop.call.reason
    raise Fault("invalid_call", f"a call that cannot be made: {reason}")


def _last_segment(text: str, at: int, stop: Stop | None, renderer: Renderer) -> Segment:
    """What follows the last output, up to the closing answer tag where the renderer has one."""
    if stop is None:
        if renderer.answer_close:
            raise Fault("no_answer", f"the text does not end in {renderer.answer_close}")
        return Segment(text=text[at:].rstrip())
    end = at + stop.end
    behind = text[end:]
    stray = next((tag for tag in _all_tags(renderer) if tag in behind), None)
    if stray is not None:
        raise Fault("stray_tag", f"{stray!r} stands behind the closing answer tag")
    return Segment(text=text[at:end])


def _output_at(text: str, at: int, call: Call, renderer: Renderer) -> tuple[int, str] | None:
    """Where the output that begins at `at` ends, and what it says; None: there is none."""
    if not holds_outputs_in_text(renderer):
        return None
    assert renderer.tool is not None
    opening, closing = map(re.escape, _around(renderer.tool.observation_of(call.tool)))
    found = re.compile(rf"\s*{opening}(.*?){closing}\s*", re.DOTALL).match(text, at)
    return None if found is None else (found.end(), found[1])


def _without_tags(text: str, renderer: Renderer) -> str:
    """A tool turn's text; some rows have the renderer's tags in it too."""
    assert renderer.tool is not None
    bare = text.strip()
    for shape in renderer.tool.observations:
        opening, closing = _around(shape)
        if opening and closing and bare.startswith(opening) and bare.endswith(closing):
            return bare[len(opening) : -len(closing)].strip("\n")
    return text.strip("\n")


def _around(shape: str) -> tuple[str, str]:
    opening, _, closing = shape.partition("{output}")
    return opening.strip(), closing.strip()


def _all_tags(renderer: Renderer) -> list[str]:
    assert renderer.tool is not None
    shapes = [tag for shape in renderer.tool.observations for tag in _around(shape) if tag]
    return [*renderer.all_tags, *shapes]


def _check_tags(trace: Trace, renderer: Renderer) -> None:
    """Each tag stands as often as the trace's structure needs it, wherever it stands.

    For renderers with tags alone: a fence or a name of a tool may well stand in prose.
    """
    tool = renderer.tool
    if tool is None or tool.parser != TAGS:
        return
    text = renderer.response_prefix + trace.policy_text
    wanted = dict.fromkeys(_all_tags(renderer), 0)
    pairs = [(PYTHON, tool.code_open, tool.code_close)]
    pairs += [(pair.tool, pair.open, pair.close) for pair in tool.calls]
    for name, opening, closing in pairs:
        made = sum(call.tool == name for call in trace.calls)
        wanted |= {tag: made for tag in (opening, closing) if tag}
    if renderer.answer_close:
        opening = renderer.tags.answer_open
        wanted |= {tag: 1 for tag in (opening, renderer.answer_close) if tag}
    for tag, count in wanted.items():
        if (found := text.count(tag)) != count:
            raise Fault(
                "stray_tag", f"{tag!r} stands {found} times in the policy's text, not {count}"
            )


def _shown(call: Call) -> str:
    return repr(" ".join(str(value) for value in call.arguments.values())[:60])
