"""A text renderer as data: the prompt, the tags, what an observation looks like, where answers end.

Templates are TOML files; `templates/retool.toml` explains every key. Where text from outside (a question,
what a tool printed) becomes token ids, it becomes ordinary characters: `<|im_end|>` in it is ten of them.
Not covered: which tag counts (`policy_text`), what an observation shows (`observation`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.core.calls import CODE, PYTHON, Call, ToolSpec
from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.plain_text import encode_between
from jaxtool.data.tokenizer import Tokenizer, with_start
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.renderers.observation import defused, shown_output
from jaxtool.renderers.policy_text import PolicyTextReader, Reader, Tags
from jaxtool.renderers.template_file import TemplateFile, read_template
from jaxtool.renderers.tool_format import ToolFormat, ToolTags

_LONGEST_TOKEN_CHARS = 128
_NO_LIMIT = 1 << 30  # characters
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

    @property
    def stop_tags(self) -> tuple[str, ...]:
        """Texts after which the host must look at a row."""
        tags = self.tool.closes if self.tool else ()
        return (*tags, self.answer_close) if self.answer_close else tags

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Texts that the tokenizer must be able to write."""
        opens = self.tool.opens if self.tool else ()
        return (*opens, *self.stop_tags)

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
        calls = tuple(_for_spec(pair, by_name[pair.tool]) for pair in self.tool.calls)
        return dataclasses.replace(
            self, tool=dataclasses.replace(self.tool, calls=calls), tools=tuple(specs)
        )

    def reader(self, *, is_first: bool = False) -> Reader:
        """Reads a segment of the policy's text.

        Args:
          is_first: the segment begins the response, and what the renderer wrote before it belongs to it.
        """
        return PolicyTextReader(self.tags, self.response_prefix if is_first else "")

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
        messages = [
            {"role": role, "content": content.replace("{question}", question)}
            for role, content in self.messages
        ]
        if self.uses_chat_template:
            text = tokenizer.render_chat(messages)
        else:
            text = "".join(message["content"] for message in messages)
        return text + self.response_prefix

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


def _for_spec(pair: ToolTags, spec: ToolSpec) -> ToolTags:
    """The pair as this tool needs it; raises ValueError if one argument is not enough for it."""
    properties = spec.parameters.get("properties", {})
    others = [name for name in spec.parameters.get("required", ()) if name != pair.argument]
    if pair.argument not in properties or others:
        is_known = pair.argument in properties
        wanted = f"needs {', '.join(others)} as well" if is_known else "has no such argument"
        raise ValueError(
            f"tags {pair.open} {pair.close} give {pair.tool!r} its argument {pair.argument!r}, and the "
            f"tool {wanted}: use a renderer that writes arguments by name"
        )
    is_text = properties[pair.argument].get("type") == "string"
    return dataclasses.replace(pair, is_json=not is_text)


def observation_text(result: ToolResult, renderer: Renderer, tool: str = PYTHON) -> str:
    """What the policy reads after a call; tags inside the output are defused."""
    parts, output = _observation(result, renderer, tool)
    return output.join(parts)


def observation_ids(
    tokenizer: Tokenizer,
    result: ToolResult,
    renderer: Renderer,
    tool: str = PYTHON,
    max_tokens: int | None = None,
) -> list[int]:
    """Ids of `observation_text`; control tokens come from the template alone, never from the output.

    Args:
      max_tokens: of the output, whose head is kept; then the renderer's limit in characters does not hold.
    """
    parts, output = _observation(result, renderer, tool, is_whole=max_tokens is not None)
    if max_tokens is not None:
        output = _head(tokenizer, output, max_tokens)
    return encode_between(tokenizer, parts, output)


def notice_ids(tokenizer: Tokenizer, text: str, renderer: Renderer) -> list[int]:
    """Ids of a text of the run's own, in the place and form of an observation."""
    result = ToolResult(status=ToolStatus.OK, stdout=text)
    return encode_between(tokenizer, *_observation(result, renderer, PYTHON, is_whole=True))


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
    result: ToolResult, renderer: Renderer, tool: str, *, is_whole: bool = False
) -> tuple[list[str], str]:
    form = renderer.tool
    if form is None:
        raise ValueError(f"renderer {renderer.name!r} has no tool")
    parts = form.observation_of(tool).split("{output}")
    closes = [shape.split("{output}")[1].strip() for shape in form.observations]
    form = dataclasses.replace(form, max_output_chars=_NO_LIMIT) if is_whole else form
    return parts, defused(shown_output(result, form), (*renderer.all_tags, *closes))


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


def _from_template(template: TemplateFile) -> Renderer:
    tables = template.tables
    messages = tuple((m["role"], m["content"]) for m in tables["messages"])
    form, answer = tables["format"], tables["answer"]
    if not any("{question}" in content for _, content in messages):
        raise ValueError("messages: no message holds {question}: write it where the question goes")
    tool = _tool_format(tables)
    close = answer["close"]
    if close and tool is not None and close in (*tool.opens, *tool.closes):
        raise ValueError(f"answer.close = {close!r} is a tag of the tool's calls: give another one")
    return Renderer(
        name=template.name,
        messages=messages,
        uses_chat_template=form["uses_chat_template"],
        response_prefix=form["response_prefix"],
        tool=tool,
        answer=_answer_format(answer, form["response_prefix"]),
        answer_close=close,
    )


def _tool_format(tables: Mapping[str, Any]) -> ToolFormat | None:
    """The [tool] table with the [[calls]] tables; None: the renderer has no tool."""
    if "tool" not in tables:
        if "calls" in tables:
            raise ValueError(
                "calls[0] needs a [tool] table, which says what an observation looks like"
            )
        return None
    calls = tuple(ToolTags(**pair) for pair in tables.get("calls", ()))
    return ToolFormat(**tables["tool"], calls=calls)


def _answer_format(answer: Mapping[str, Any], prefix: str) -> AnswerFormat:
    """The format of an [answer] table; without a closing tag that ends the response, <answer>'s."""
    close = answer["close"] or "</answer>"
    # </final> has its <final>; a close of another form has none, unless the file names it.
    opening = answer.get("open", close.replace("</", "<", 1))
    if not opening.strip():
        raise ValueError("answer.open = '' must not be empty: name a tag, or leave the key out")
    if answer["style"] == "answer_tag" and opening == close:
        raise ValueError(
            f"answer.open is missing: style answer_tag needs it, {close!r} has no opening tag"
        )
    return AnswerFormat(style=answer["style"], open=opening, close=close, prefix=prefix)


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
