"""A text renderer as data: the prompt, the tags, what an observation looks like, where answers end.

Templates are TOML files; `templates/retool.toml` explains every key. Where text from outside (a question,
what a tool printed) becomes token ids, it becomes ordinary characters: `<|im_end|>` in it is ten of them.
Not covered: which tag counts (`policy_text`), what an observation shows (`observation`).
"""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from jaxtool.core.calls import CODE, PYTHON, Call, ToolSpec
from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.plain_text import encode_between
from jaxtool.data.tokenizer import Tokenizer, with_start
from jaxtool.formats.signatures import Signatures
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.renderers.fenced_reader import FencedReader
from jaxtool.renderers.observation import defused, shown_output
from jaxtool.renderers.policy_text import PolicyTextReader, Reader, Tags
from jaxtool.renderers.prompt_tools import as_functions, filled
from jaxtool.renderers.tables import answer_format_of, check_form, for_spec, tool_format_of
from jaxtool.renderers.template_file import TemplateFile, read_template
from jaxtool.renderers.tool_format import FENCED, ToolFormat
from jaxtool.renderers.tool_turn import ToolTurn, is_tag, tool_turn
from jaxtool.renderers.turn_reader import TurnReader

_LONGEST_TOKEN_CHARS = 128
_NO_LIMIT = 1 << 30  # characters
_NOTICE_TOKENS = 1 << 20  # all of it
# Stands for a question while a chat template writes what goes around it.
_PLACEHOLDER = "\ue000question\ue001"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Renderer:
    """How one problem becomes a prompt and what the response's tags mean."""

    name: str
    messages: tuple[tuple[str, str], ...]  # (role, content with {question})
    uses_chat_template: bool
    response_prefix: str
    tool: ToolFormat | None  # None: the policy works without a tool
    answer: AnswerFormat
    answer_close: str  # ends the response; "": the end-of-sequence token does
    tools: tuple[ToolSpec, ...] = ()  # of the run, for the prompt
    tool_free: str = ""  # the template that asks the same without tools; "": nobody said

    @property
    def stop_tags(self) -> tuple[str, ...]:
        """Texts after which the host must look at a row."""
        tags = self.tool.stops if self.tool else ()
        return (*tags, self.answer_close) if self.answer_close else tags

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Texts that the tokenizer must be able to write."""
        marks = self.tool.marks if self.tool else ()
        return tuple(dict.fromkeys((*marks, *self.stop_tags)))

    @property
    def tags(self) -> Tags:
        """What is looked for in the policy's text."""
        tool = self.tool
        return Tags(
            code_open=tool.code_open if tool else "",
            code_close=tool.code_close if tool else "",
            answer_open=self._answer_open if self.answer_close else "",
            answer_close=self.answer_close,
            observation_open=tool.observation.split("{output}")[0].strip() if tool else "",
            calls=tool.calls if tool else (),
        )

    def with_tools(self, specs: Sequence[ToolSpec]) -> "Renderer":
        """The renderer for a run with these tools.

        Raises:
          ValueError: it cannot call one of them, or calls one that the run lacks.
        """
        if self.tool is None:
            return self
        if self.tool.form is not None:
            if not specs:
                raise ValueError(
                    f"renderer {self.name!r} calls tools by name, and the run has none: add one to "
                    "RlConfig.tools, or use another renderer"
                )
            Signatures(specs)  # raises for a schema that is none
            return dataclasses.replace(self, tools=tuple(specs))
        names = [spec.name for spec in specs]
        for spec in specs:
            if spec.name not in self.tool.tools:
                raise ValueError(
                    f"renderer {self.name!r} cannot call the tool {spec.name!r}, only "
                    f"{', '.join(self.tool.tools)}: give it tags in a [[calls]] table, or use another"
                )
        for name in self.tool.tools:
            if name not in names:
                raise ValueError(
                    f"renderer {self.name!r} calls {name!r}, and the run's tools are "
                    f"{', '.join(names) or 'none'}: add it to RlConfig.tools, or use another renderer"
                )
        by_name = {spec.name: spec for spec in specs}
        calls = tuple(for_spec(pair, by_name[pair.tool]) for pair in self.tool.calls)
        return dataclasses.replace(
            self, tool=dataclasses.replace(self.tool, calls=calls), tools=tuple(specs)
        )

    def reader(self, *, is_first: bool = False) -> Reader:
        """Reads a segment of the policy's text.

        Args:
          is_first: the segment begins the response, and what the renderer wrote before it belongs to it.
        """
        prefix, tool = self.response_prefix if is_first else "", self.tool
        if tool is not None and tool.form is not None:
            return TurnReader(tool.form, self._signatures, prefix, several_calls=tool.several_calls)
        is_fenced = tool is not None and tool.parser == FENCED
        return (FencedReader if is_fenced else PolicyTextReader)(self.tags, prefix)

    @property
    def ends_by_turn(self) -> bool:
        """Whether the policy's end token may end a call: the reader is then asked with `is_end`."""
        return self.tool is not None and self.tool.ends_by_turn

    def reads_no_call(self, turn: str) -> bool:
        """Whether a turn holds no call of the form that is read, possible or not."""
        form = None if self.tool is None else self.tool.form
        return form is None or not form.read_calls(turn, self._signatures)

    @functools.cached_property
    def _signatures(self) -> Signatures:
        return Signatures(self.tools)

    def to_run(self, call: Call) -> Call:
        """The call as its tool gets it: a program has the prelude before it, which ledgers do not show."""
        if self.tool is None or call.tool != PYTHON:
            return call
        return Call.python(self.tool.with_prelude(call.arguments[CODE]))

    @property
    def _answer_open(self) -> str:
        """Behind it the closing tag counts; "" where it has no opening tag, as in `close = "END"`."""
        return "" if self.answer.open == self.answer.close else self.answer.open

    def prompt_text(self, tokenizer: Tokenizer, question: str) -> str:
        messages = self.chat(question)
        if self.uses_chat_template:
            text = self.render_chat(tokenizer, messages)
        else:
            text = "".join(message["content"] for message in messages)
        return text + self.response_prefix

    def chat(self, question: str) -> list[dict[str, str]]:
        """The messages of the prompt."""
        return [
            {"role": role, "content": filled(content, question, self.tools)}
            for role, content in self.messages
        ]

    def render_chat(self, tokenizer: Tokenizer, messages: Sequence[dict[str, str]]) -> str:
        """Text of a conversation, in which the template describes the tools if no message does."""
        functions = as_functions(self.tools) if self.template_describes_tools else ()
        return (
            tokenizer.render_chat(messages, functions)
            if functions
            else tokenizer.render_chat(messages)
        )

    @property
    def template_describes_tools(self) -> bool:
        """Whether the chat template is given the tools: calls go by name, and no message has {tools}."""
        if self.tool is None or self.tool.form is None or not self.uses_chat_template:
            return False
        return not any("{tools}" in content for _, content in self.messages)

    def tool_turn(self, tokenizer: Tokenizer) -> ToolTurn | None:
        """What the chat template writes around a result; None: the renderer's file says it.

        Raises:
          ValueError: the template cannot write one.
        """
        if self.tool is None or not self.tool.is_template_turn:
            return None
        known = self._tool_turns.get(id(tokenizer))
        if known is None:
            render = functools.partial(self.render_chat, tokenizer)
            turn = tool_turn(render, self.chat(_PLACEHOLDER), self.tool.role)
            known = self._tool_turns[id(tokenizer)] = tokenizer, turn
        return known[1]

    @functools.cached_property
    def _tool_turns(self) -> dict[int, tuple[Tokenizer, ToolTurn]]:
        """By tokenizer, which is kept so that its id stays its own."""
        return {}

    def prompt_ids(self, tokenizer: Tokenizer, problem: Problem) -> list[int]:
        """Ids of `prompt_text`; control tokens come from the template alone, never from the question."""
        question = problem.question
        text = self.prompt_text(tokenizer, question)
        parts = self.prompt_text(tokenizer, _PLACEHOLDER).split(_PLACEHOLDER)
        # Chat templates may strip what they put in.
        written = question if question.join(parts) == text else question.strip()
        ids = encode_between(tokenizer, parts, written, whole=text)
        return ids if self.uses_chat_template else with_start(tokenizer, ids)


def parse_code(segment: str, tool: ToolFormat) -> str:
    """Program of a policy segment that ends in `code_close`; "" if there is none to run."""
    tags = Tags(code_open=tool.code_open, code_close=tool.code_close)
    reader = PolicyTextReader(tags)
    reader.feed(segment.encode("utf-8", "replace"))
    program = ""
    while (stop := reader.next_stop(is_end=True)) is not None:
        program = stop.call.arguments[CODE] if isinstance(stop.call, Call) else ""
    return program


def observation_text(
    result: ToolResult, renderer: Renderer, tool: str = PYTHON, tokenizer: Tokenizer | None = None
) -> str:
    """What the policy reads after a call; tags inside the output are defused.

    Args:
      tokenizer: needed where its chat template writes results as turns.
    """
    parts, output = _observation(result, renderer, tool, tokenizer)
    return output.join(parts)


def observation_ids(
    tokenizer: Tokenizer,
    result: ToolResult,
    renderer: Renderer,
    tool: str = PYTHON,
    max_tokens: int | None = None,
) -> list[int]:
    """Ids of `observation_text`; control tokens come from the template alone, never from the output.

    Where the template writes a turn, the end token of the policy's turn is left out: the policy wrote it.

    Args:
      max_tokens: of the output, whose head is kept; then the renderer's limit in characters does not hold.
    """
    ids = encode_between(tokenizer, *_observation(result, renderer, tool, tokenizer, max_tokens))
    ends_turn = renderer.ends_by_turn and ids and ids[0] in tokenizer.eos_ids
    return ids[1:] if ends_turn else ids


def notice_ids(tokenizer: Tokenizer, text: str, renderer: Renderer) -> list[int]:
    """Ids of a text of the run's own, in the place and form of an observation."""
    result = ToolResult(status=ToolStatus.OK, stdout=text)
    return observation_ids(tokenizer, result, renderer, max_tokens=_NOTICE_TOKENS)


def _head(tokenizer: Tokenizer, text: str, max_tokens: int) -> str:
    """The longest beginning of `text` that encodes to at most `max_tokens` tokens, cut at a character."""
    # No tokenizer here makes a token of more than so many characters; it bounds what is encoded.
    text = text[: max_tokens * _LONGEST_TOKEN_CHARS]
    if len(tokenizer.encode_plain(text)) <= max_tokens:
        return text
    fits, too_long = 0, len(text)
    while too_long - fits > 1:
        middle = (fits + too_long) // 2
        if len(tokenizer.encode_plain(text[:middle])) <= max_tokens:
            fits = middle
        else:
            too_long = middle
    return text[:fits]


def _observation(
    result: ToolResult,
    renderer: Renderer,
    tool: str,
    tokenizer: Tokenizer | None,
    max_tokens: int | None = None,
) -> tuple[list[str], str]:
    """The text around what a tool said, and that text, defused and within its limit."""
    form = renderer.tool
    if form is None:
        raise ValueError(f"renderer {renderer.name!r} has no tool")
    turn = None
    if form.is_template_turn:
        if tokenizer is None:
            raise ValueError(
                f"renderer {renderer.name!r} needs a tokenizer: its template writes turns"
            )
        turn = renderer.tool_turn(tokenizer)
    if turn is None:
        parts = form.observation_of(tool).split("{output}")
        closes = [shape.split("{output}")[1].strip() for shape in form.observations]
        tags = (*renderer.all_tags, *closes)
    else:
        parts = [turn.before, turn.after]
        tags = (*turn.tags, *(mark for mark in form.marks if is_tag(mark)))
    if max_tokens is None or tokenizer is None:
        output = defused(shown_output(result, form), tags)
    else:
        form = dataclasses.replace(form, max_output_chars=_NO_LIMIT)
        output = _head(tokenizer, defused(shown_output(result, form), tags), max_tokens)
    return parts, output if turn is None else turn.written(output)


def load_renderer(name_or_path: str) -> Renderer:
    """Reads `templates/<name>.toml`, or the file at a path that ends in .toml.

    Raises:
      FileNotFoundError: no such template.
      ValueError: a fault in it, with its line.
    """
    template = read_template(name_or_path)
    try:
        return _from_template(template)
    except ValueError as error:
        raise template.fault(str(error)) from error


def tool_free_name(name_or_path: str) -> str:
    """The template that asks the same question without tools; the renderer itself where it has none.

    A path is looked for beside the renderer's own file.

    Raises:
      FileNotFoundError, ValueError: as `load_renderer`; or the renderer names none, or one that calls tools.
    """
    renderer = load_renderer(name_or_path)
    if renderer.tool is None:
        return name_or_path
    name = renderer.tool_free
    if not name:
        raise ValueError(
            f"renderer {name_or_path!r} names no prompt without tools: add tool_free = 'NAME' to its [format] "
            "table, such as boxed_text or a file of yours"
        )
    if name.endswith(".toml"):
        name = str(Path(name_or_path).parent / name)
    if load_renderer(name).tool is not None:
        raise ValueError(f"renderer {name_or_path!r}: its tool_free = {name!r} calls tools as well")
    return name


def _from_template(template: TemplateFile) -> Renderer:
    tables = template.tables
    messages = tuple((m["role"], m["content"]) for m in tables["messages"])
    form, answer = tables["format"], tables["answer"]
    if not any("{question}" in content for _, content in messages):
        raise ValueError("messages: no message holds {question}: write it where the question goes")
    tool = tool_format_of(tables)
    close = answer["close"]
    if tool is not None and tool.form is not None:
        check_form(tool, messages, form["uses_chat_template"], close)
    if close and tool is not None and close in (*tool.opens, *tool.closes):
        raise ValueError(f"answer.close = {close!r} is a tag of the tool's calls: give another one")
    return Renderer(
        name=template.name,
        messages=messages,
        uses_chat_template=form["uses_chat_template"],
        response_prefix=form["response_prefix"],
        tool=tool,
        answer=answer_format_of(answer, form["response_prefix"]),
        answer_close=close,
        tool_free=form.get("tool_free", ""),
    )


def stop_token_mask(tokenizer: Tokenizer, tags: Sequence[str]) -> list[bool]:
    """[V] True for tokens that end a response or whose bytes could complete one of `tags`.

    A token can complete a tag if it holds the tag, or if it begins with a non-empty end of it.
    """
    raw = [tag.encode() for tag in tags]
    ends = tuple({tag[i:] for tag in raw for i in range(len(tag))})
    mask = []
    for token_id in range(tokenizer.vocab_size):
        piece = tokenizer.token_bytes(token_id)
        mask.append(piece.startswith(ends) or any(tag in piece for tag in raw))
    for token_id in tokenizer.eos_ids:
        mask[token_id] = True
    return mask
