"""Docstrings as the site shows them: what stands indented in their text, a picture or worked numbers, keeps its lines.

An extension of griffe, which reads the docstrings. Sections such as Args: are left to it.
"""

import re
from typing import Any

import griffe

_SECTION = re.compile(r"(Args|Returns|Raises|Yields|Attributes|Example|Examples|Note):$")


def with_blocks(text: str) -> str:
    """`text` with each indented block between fences.

    Example: "As here:\\n\\n  a 1\\n  b 2\\n\\nArgs:\\n  x: one." gives "As here:\\n\\n```text\\n  a 1\\n  b 2\\n```\\n\\nArgs:\\n  x: one."
    """
    lines: list[str] = []
    is_block = is_section = False
    for line in text.splitlines():
        if line and not line.startswith(" "):
            is_section = bool(_SECTION.match(line))
        is_indented = line.startswith("  ") and not is_section
        begins = (
            not lines or not lines[-1] or lines[-1].endswith(":")
        )  # else it goes on with a list's item
        if is_indented and begins and not is_block:
            lines += ["", "```text"] if lines and lines[-1] else ["```text"]
            is_block = True
        elif is_block and line and not is_indented:
            while not lines[-1]:
                lines.pop()
            lines += ["```", ""]
            is_block = False
        lines.append(line)
    return "\n".join([*lines, "```"] if is_block else lines)


class IndentedBlocks(griffe.Extension):
    """Puts `with_blocks` between the sources and their rendering."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = with_blocks(obj.docstring.value)
