"""What the tables of a renderer's file mean together: calls, observations, the answer's place.

Not covered: which keys there are (`template_file`), tags of one pair (`tool_format`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.core.calls import ToolSpec
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.renderers.tool_format import FENCED, FENCED_CODE, ToolFormat, ToolTags


def check_form(
    tool: ToolFormat, messages: Sequence[tuple[str, str]], has_template: bool, close: str
) -> None:
    """What parsers of calls by name need; raises ValueError."""
    if close:
        raise ValueError(
            f"answer.close = {close!r} must be '' with tool.parser = {tool.parser!r}: the end token ends "
            "an answer"
        )
    if not has_template and tool.is_template_turn:
        raise ValueError(
            "tool.observation is missing: without a chat template, say here what a result looks like"
        )
    if not has_template and not any("{tools}" in content for _, content in messages):
        raise ValueError(
            "messages: no message holds {tools}, and there is no chat template that describes them: "
            "write {tools} where they go"
        )


def tool_format_of(tables: Mapping[str, Any]) -> ToolFormat | None:
    """The [tool] table with the [[calls]] tables; None: the renderer has no tool."""
    if "tool" not in tables:
        if "calls" in tables:
            raise ValueError(
                "calls[0] needs a [tool] table, which says what an observation looks like"
            )
        return None
    calls = tuple(ToolTags(**pair) for pair in tables.get("calls", ()))
    table = {"observation": ""} | tables["tool"]
    if table.get("parser") == FENCED:
        table |= {"code_open": FENCED_CODE, "code_close": "```"}
    return ToolFormat(**table, calls=calls)


def answer_format_of(answer: Mapping[str, Any], prefix: str) -> AnswerFormat:
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


def for_spec(pair: ToolTags, spec: ToolSpec) -> ToolTags:
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
