"""The [tool] and [[calls]] tables of a renderer: tags around calls, shape of an observation."""

import ast
import dataclasses
import json
import re
from typing import Literal, get_args

from jaxtool.core.calls import CODE, PYTHON, Call, InvalidCall
from jaxtool.formats.base import FORMATS, CallFormat

ErrorStyle = Literal["last_line", "traceback"]
SeveralCalls = Literal["first", "refuse"]
TAGS, FENCED = "tags", "fenced"  # parsers that read programs; the others are `jaxtool.formats`
PARSERS = (TAGS, FENCED, *FORMATS)
# ToRL's: the policy begins the output itself.
FENCED_CODE, FENCED_OUTPUT = "```python", "```output"

_FENCE = re.compile(r"(?:`{3,}|~{3,})[^\s`~]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolTags:
    """Tags around the one argument of a tool: <search>who wrote Emma</search>."""

    tool: str
    argument: str
    open: str
    close: str
    observation: str = ""  # the shape of what it says; "": that of all tools
    is_json: bool = (
        False  # the argument is written as JSON, such as 3 or [1, 2]; else it is the text
    )

    def read(self, text: str) -> Call | InvalidCall | None:
        """What stands between the tags as a call; None where nothing does."""
        text = text.strip()
        if not text or not self.is_json:
            return Call(tool=self.tool, arguments={self.argument: text}) if text else None
        try:
            value = json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            reason = f"{self.argument} must be JSON, such as 3 or [1, 2]"
            return InvalidCall(reason=reason, tool=self.tool)
        return Call(tool=self.tool, arguments={self.argument: value})


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """Tags around a call and the shape of an observation."""

    observation: str  # "": a turn of the chat template, of the role `role`
    max_output_chars: int
    error_style: ErrorStyle
    empty_output: str
    parser: str = TAGS  # how calls are read: one of PARSERS
    several_calls: SeveralCalls = "first"  # of a turn: the first is made, or all are refused
    role: str = "tool"  # of a result, where the chat template writes it
    code_open: str = ""  # of the code tool; "": the renderer cannot call it
    code_close: str = ""
    fence: str = ""  # what demonstrations write; every spelling is read, also where this is ""
    prelude: str = ""  # run before every program, in the same process; ledgers do not show it
    calls: tuple[ToolTags, ...] = ()  # of tools that take a text

    def __post_init__(self) -> None:
        self._check_parser()
        if self.form is None:
            self._check_tags()
        if self.fence and not _FENCE.fullmatch(self.fence):
            raise ValueError(
                f"tool.fence = {self.fence!r} must be three or more backticks or tildes and a word, "
                "such as ```python, or empty"
            )
        shapes = [] if self.is_template_turn else [("tool.observation", self.observation)]
        shapes += [
            (f"calls[{n}].observation", pair.observation)
            for n, pair in enumerate(self.calls)
            if pair.observation
        ]
        for name, shape in shapes:
            if "{output}" not in shape:
                raise ValueError(
                    f"{name} = {shape!r} lacks {{output}}: write it where the output goes"
                )
        if self.max_output_chars < 1:
            raise ValueError(
                f"tool.max_output_chars = {self.max_output_chars} must be 1 or more: ReTool has 400"
            )
        if self.error_style not in get_args(ErrorStyle):
            raise ValueError(
                f"tool.error_style must be last_line or traceback, got {self.error_style!r}"
            )
        try:
            ast.parse(self.prelude)
        except (SyntaxError, ValueError) as error:
            raise ValueError(
                f"tool.prelude is no Python ({error}): every program would fail, mend it"
            ) from error

    def _check_parser(self) -> None:
        """Raises ValueError unless the parser is one, and has what it reads."""
        if self.parser not in PARSERS:
            raise ValueError(f"tool.parser = {self.parser!r} must be one of {', '.join(PARSERS)}")
        if self.several_calls not in get_args(SeveralCalls):
            raise ValueError(
                f"tool.several_calls must be first or refuse, got {self.several_calls!r}"
            )
        if self.parser != TAGS and self.calls:
            raise ValueError(
                f"calls[0] is for parser tags, and tool.parser = {self.parser!r} reads calls by itself: "
                "take the [[calls]] out"
            )

    @property
    def form(self) -> CallFormat | None:
        """How calls of any tool are written by name; None: by tags, or a fence, of one tool each."""
        return FORMATS.get(self.parser)

    @property
    def is_template_turn(self) -> bool:
        """Whether the chat template writes results, as turns between those of the policy."""
        return self.form is not None and not self.form.stop and not self.observation

    @property
    def ends_by_turn(self) -> bool:
        """Whether the policy's end token ends a call: no text does."""
        return self.form is not None and not self.form.stop

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end a call."""
        if self.form is not None:
            return (self.form.stop,) if self.form.stop else ()
        return (FENCED_OUTPUT,) if self.parser == FENCED else self.closes

    @property
    def marks(self) -> tuple[str, ...]:
        """Texts of a call that no result may hold, and that a tokenizer must be able to write."""
        if self.form is not None:
            return self.form.marks
        return (*self.opens, *self.closes, *self.stops)

    def _check_tags(self) -> None:
        """Raises ValueError unless every tag is there, and no tag begins with another."""
        if self.code_open or self.code_close or not self.calls:
            for name in ("code_open", "code_close"):
                if not getattr(self, name).strip():
                    raise ValueError(f"tool.{name} must not be empty: give a tag, such as <code>")
        if self.code_open and self.code_open == self.code_close:
            raise ValueError(
                f"tool.code_close = {self.code_close!r} must not be the opening tag: give two tags"
            )
        own = {"tool.code_open": self.code_open, "tool.code_close": self.code_close}
        for n, pair in enumerate(self.calls):
            for key, tag in (("open", pair.open), ("close", pair.close)):
                name = f"calls[{n}].{key}"
                if not tag.strip():
                    raise ValueError(f"{name} must not be empty: give a tag, such as <search>")
                for other, theirs in own.items():
                    if theirs and (tag.startswith(theirs) or theirs.startswith(tag)):
                        raise ValueError(
                            f"{name} = {tag!r} cannot be told from {other} = {theirs!r}: give another tag"
                        )
                own[name] = tag
        for n, pair in enumerate(self.calls):
            if pair.tool in self.tools[: -len(self.calls) + n]:
                raise ValueError(
                    f"calls[{n}].tool = {pair.tool!r} has tags already: a tool has one pair"
                )

    @property
    def tools(self) -> tuple[str, ...]:
        """Names of the tools that can be called in these tags; by name it is any, and Python where none is named."""
        if self.form is not None:
            return (PYTHON,)
        return (*[PYTHON] * bool(self.code_open), *(pair.tool for pair in self.calls))

    @property
    def closes(self) -> tuple[str, ...]:
        """Tags that end a call."""
        return (*[self.code_close] * bool(self.code_close), *(pair.close for pair in self.calls))

    @property
    def opens(self) -> tuple[str, ...]:
        return (*[self.code_open] * bool(self.code_open), *(pair.open for pair in self.calls))

    @property
    def observations(self) -> tuple[str, ...]:
        """Shapes of an observation, the common one first."""
        own = [pair.observation for pair in self.calls if pair.observation]
        return tuple(dict.fromkeys([self.observation, *own]))

    def observation_of(self, tool: str) -> str:
        """The shape of what a tool says."""
        own = [pair.observation for pair in self.calls if pair.tool == tool and pair.observation]
        return own[0] if own else self.observation

    def with_prelude(self, code: str) -> str:
        """What is run for the program `code`; the prelude ends in a newline, whether written or not."""
        return self.prelude + "\n" * (self.prelude[-1:] not in ("", "\n")) + code

    def write_call(self, call: Call) -> str:
        """A call as the policy writes it, up to where its result begins.

        Raises:
          ValueError: the tool has no tags, or an argument has no place between them.
        """
        if self.form is not None:
            return self.form.write_call(call)
        pair = next((pair for pair in self.calls if pair.tool == call.tool), None)
        if pair is None and call.tool not in self.tools:
            raise ValueError(f"it calls {', '.join(self.tools)}, and not {call.tool!r}")
        argument = CODE if pair is None else pair.argument
        if set(call.arguments) != {argument}:
            names = ", ".join(call.arguments) or "nothing"
            raise ValueError(f"its tags hold {argument!r} alone, and {call.tool} is given {names}")
        value = call.arguments[argument]
        if not isinstance(value, str) and not (pair and pair.is_json):
            raise ValueError(f"its tags hold a text, and {argument} is {value!r:.40}")
        if pair is not None:
            text = json.dumps(value, ensure_ascii=False) if pair.is_json else value
            return f"{pair.open}{text}{pair.close}"
        if self.parser == FENCED:
            return f"{FENCED_CODE}\n{value}\n```\n{FENCED_OUTPUT}"
        return self.fenced(value)

    def joined(self, text: str, call: str) -> str:
        """A turn of a text and a call as `write_call` gives it.

        Raises:
          ValueError: a turn of this form is one of the two.
        """
        between = "\n" if self.form is None else self.form.behind_text
        if text and between is None:
            raise ValueError("a turn is a text or a call, not both: leave its content out")
        return f"{text}{between}{call}" if text else call

    def fenced(self, program: str) -> str:
        """`program` as a demonstration writes it, between the code tags."""
        if self.form is not None:
            raise ValueError(
                f"tool.parser = {self.parser!r} writes calls by name: planted demonstrations need tags"
            )
        run = re.match(r"`+|~+", self.fence)
        lines = [program] if run is None else [self.fence, program, run.group()]
        return "\n".join([self.code_open, *lines, self.code_close])
