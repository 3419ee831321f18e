"""Tools by their descriptions alone, from a JSON file: enough to render and read calls, not to make them."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtool.core.calls import ToolSpec
from jaxtool.tools.base import CodeRunner, Tool


@dataclasses.dataclass(frozen=True, kw_only=True)
class DescribedTool:
    """A tool that cannot be called."""

    spec: ToolSpec
    uses_sandbox: bool = False

    def known_answers(self) -> list[tuple[Mapping[str, Any], str]]:
        return []

    def open(self, runner: CodeRunner | None = None) -> Tool:
        raise ValueError(f"tool {self.spec.name!r} is a description: it cannot be called")


def read_spec_file(path: Path) -> tuple[DescribedTool, ...]:
    """A list of {"name", "description", "parameters"}, also as {"type": "function", "function": {...}}.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: it holds something else, by file and place.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no file of tools {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: no JSON: {error}") from None
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"{path}: a list of tools is needed, one or more")
    return tuple(DescribedTool(spec=_spec(row, f"{path}: [{n}]")) for n, row in enumerate(rows))


def _spec(row: Any, where: str) -> ToolSpec:
    if isinstance(row, dict) and isinstance(row.get("function"), dict):
        row = row["function"]
    fields = row if isinstance(row, dict) else {}
    name, parameters = fields.get("name"), fields.get("parameters")
    description = fields.get("description", "")
    texts = isinstance(name, str) and name.strip() and isinstance(description, str)
    if not texts or not isinstance(parameters, dict):
        raise ValueError(
            f'{where} is no tool: write {{"name": ..., "description": ..., "parameters": JSON schema}}'
        )
    return ToolSpec(name=str(name), description=description, parameters=parameters)
