"""Tools in a prompt: as a chat template takes them, or as text where a message has {tools}.

Not covered: where in a prompt they stand, which the template or the file says.
"""

import json
import re
from collections.abc import Sequence
from typing import Any

from jaxtool.core.calls import ToolSpec

_FIELD = re.compile(r"\{(question|tools|tool_names)\}")


def filled(content: str, question: str, tools: Sequence[ToolSpec]) -> str:
    """A message with its question and, where there are tools, {tools} and {tool_names}.

    One pass, so that a question that holds {tools}, or a description that holds {question}, stays as it is.
    """
    values = {"question": question}
    if tools:
        values |= {
            "tools": "\n".join(described(spec) for spec in tools),
            "tool_names": ", ".join(spec.name for spec in tools),
        }
    return _FIELD.sub(lambda found: values.get(found[1], found[0]), content)


def described(spec: ToolSpec) -> str:
    """One line of JSON: {"name": "add", "description": "Adds.", "parameters": {...}}."""
    return json.dumps(_as_dict(spec), ensure_ascii=False)


def as_functions(tools: Sequence[ToolSpec]) -> list[dict[str, Any]]:
    """Tools as chat templates take them: {"type": "function", "function": {...}}."""
    return [{"type": "function", "function": _as_dict(spec)} for spec in tools]


def _as_dict(spec: ToolSpec) -> dict[str, Any]:
    return {
        "name": spec.name,
        "description": spec.description,
        "parameters": dict(spec.parameters),
    }
