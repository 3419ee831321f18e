"""A text renderer as data: the prompt, the tags, what an observation looks like, where answers end.

Templates are TOML files; `templates/retool.toml` explains every key. Text in, text out: token ids are
the collector's business.
"""

import dataclasses
import tomllib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from jaxtool.core.types import Problem, ToolResult, ToolStatus
from jaxtool.data.tokenizer import Tokenizer, with_start
from jaxtool.judges.answer_format import AnswerFormat

ErrorStyle = Literal["last_line", "traceback"]

_STATUS_TEXT = {
    ToolStatus.CPU_LIMIT: "TimeoutError: the CPU time limit was reached",
    ToolStatus.WALL_LIMIT: "TimeoutError: the wall clock limit was reached",
    ToolStatus.MEMORY_LIMIT: "MemoryError",
    ToolStatus.OUTPUT_LIMIT: "RuntimeError: too much output",
    ToolStatus.KILLED: "RuntimeError: the program was killed",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolFormat:
    """Tags around a call and the shape of an observation."""

    code_open: str
    code_close: str
    fence: str
    observation: str
    max_output_chars: int
    error_style: ErrorStyle
    empty_output: str
    prelude: str = ""  # run before every program, in the same process; ledgers do not show it

    def __post_init__(self) -> None:
        if not self.code_open or not self.code_close:
            raise ValueError("tool.code_open and tool.code_close must not be empty")
        if "{output}" not in self.observation:
            raise ValueError(f"tool.observation lacks {{output}}: {self.observation!r}")
        if self.error_style not in ("last_line", "traceback"):
            raise ValueError(
                f"tool.error_style must be last_line or traceback, got {self.error_style!r}"
            )


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

    @property
    def stop_tags(self) -> tuple[str, ...]:
        """Texts after which the host must look at a row."""
        tags = (self.tool.code_close,) if self.tool else ()
        return (*tags, self.answer_close) if self.answer_close else tags

    @property
    def all_tags(self) -> tuple[str, ...]:
        """Texts that the tokenizer must be able to write."""
        opens = (self.tool.code_open,) if self.tool else ()
        return (*opens, *self.stop_tags)

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
        ids = tokenizer.encode(self.prompt_text(tokenizer, problem.question))
        return ids if self.uses_chat_template else with_start(tokenizer, ids)


def parse_code(segment: str, tool: ToolFormat) -> str:
    """Program of a policy segment that ends in `code_close`; "" if there is none to run.

    The last opening tag counts, and within it the last fenced block if there is a fence: a program
    that the policy quoted and abandoned earlier in the segment is not run.
    """
    begin = segment.rfind(tool.code_open)
    if begin < 0:
        return ""
    body = segment[begin + len(tool.code_open) :]
    end = body.find(tool.code_close)
    body = body[:end] if end >= 0 else body
    fence = body.rfind(tool.fence)
    if fence >= 0:
        body = body[fence + len(tool.fence) :]
        end = body.find("```")
        body = body[:end] if end >= 0 else body
    return body.strip("\n")


def observation_text(result: ToolResult, renderer: Renderer) -> str:
    """What the policy reads after a call; tags inside the output are defused."""
    tool = renderer.tool
    if tool is None:
        raise ValueError(f"renderer {renderer.name!r} has no tool")
    output = _shorten(_output(result, tool), tool.max_output_chars)
    opening = tool.observation.split("{output}")[1].strip()
    for tag in (*renderer.all_tags, opening):
        output = output.replace(tag, "&lt;" + tag[1:]) if tag else output
    return tool.observation.replace("{output}", output)


def _output(result: ToolResult, tool: ToolFormat) -> str:
    if result.status is ToolStatus.OK:
        shown = [part for part in (result.stdout.rstrip("\n"), result.last_value) if part]
        return "\n".join(shown) or tool.empty_output
    if result.status is not ToolStatus.ERROR:
        return _STATUS_TEXT[result.status]
    lines = result.stderr.rstrip("\n")
    error = lines.rsplit("\n", 1)[-1] if tool.error_style == "last_line" else lines
    return error or result.error_type or "Error"


def _shorten(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    tail = limit // 4
    return text[: limit - tail] + "..." + (text[-tail:] if tail else "")


def load_renderer(name_or_path: str) -> Renderer:
    """Reads `templates/<name>.toml`, or the file at a path that ends in .toml."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(f"no renderer template at {path}")
        text, name = path.read_text(encoding="utf-8"), path.stem
    else:
        folder = resources.files("jaxtool.renderers") / "templates"
        file = folder / f"{name_or_path}.toml"
        if not file.is_file():
            known = sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))
            raise FileNotFoundError(f"no renderer template {name_or_path!r}; there are {known}")
        text, name = file.read_text(encoding="utf-8"), name_or_path
    return _from_table(tomllib.loads(text), name)


def _from_table(table: dict[str, Any], name: str) -> Renderer:
    known = {"messages", "format", "tool", "answer"}
    if unknown := set(table) - known:
        raise ValueError(
            f"renderer {name!r}: unknown keys {sorted(unknown)}; known: {sorted(known)}"
        )
    try:
        messages = tuple((m["role"], m["content"]) for m in table["messages"])
        form, answer = table["format"], table["answer"]
        renderer = Renderer(
            name=name,
            messages=messages,
            uses_chat_template=form["uses_chat_template"],
            response_prefix=form["response_prefix"],
            tool=ToolFormat(**table["tool"]) if "tool" in table else None,
            answer=_answer_format(answer, form["response_prefix"]),
            answer_close=answer["close"],
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"renderer {name!r}: {error}") from error
    if not any("{question}" in content for _, content in messages):
        raise ValueError(f"renderer {name!r}: no message holds {{question}}")
    return renderer


def _answer_format(answer: dict[str, Any], prefix: str) -> AnswerFormat:
    """The format of an [answer] table; without a closing tag that ends the response, <answer>'s."""
    close = answer["close"] or "</answer>"
    opening = answer.get("open", close.replace("</", "<", 1))
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
