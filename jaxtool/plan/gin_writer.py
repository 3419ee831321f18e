"""Writes gin files: imports, includes and blocks, in the order in which a reader wants them, with a reason beside a value.

Covered: literals, references, flat dataclasses. Whole configurations are `jaxtool.config.record`'s.
"""

import dataclasses
from typing import Any

Line = tuple[str, Any] | tuple[str, Any, str]  # a field, its value, and a reason


@dataclasses.dataclass(frozen=True)
class Raw:
    """A value that is written as it is: a macro or a reference."""

    text: str


def literal(value: Any) -> str:
    """As gin files here write it: "text", 1e-6, True, (1, 2)."""
    if isinstance(value, str):
        text = repr(value)
        return f'"{text[1:-1]}"' if text[0] == "'" and '"' not in text else text
    if isinstance(value, tuple):
        inner = ", ".join(map(literal, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    return repr(value).replace("e-0", "e-") if isinstance(value, float) else repr(value)


class GinFile:
    """Imports, includes and blocks of a gin file, in the order in which a reader wants them."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.includes: list[str] = []
        self.macros: list[str] = []
        self.blocks: list[str] = []

    def block(self, module: str, name: str, *lines: Line, alias: str = "") -> None:
        """`alias.name` with one binding a line; a line's third part is its comment."""
        package, _, last = module.rpartition(".")
        self.imports.add(f"from {package} import {last}" + f" as {alias}" * bool(alias))
        written = []
        for key, value, *comment in lines:
            text = value.text if isinstance(value, Raw) else literal(value)
            written.append(f"{key} = {text}" + "".join(f"  # {reason}" for reason in comment))
        owner = f"{alias or last}.{name}"
        if len(written) == 1:
            self.blocks.append(f"{owner}.{written[0]}\n")
        else:
            self.blocks.append(f"{owner}:\n" + "".join(f"    {line}\n" for line in written))

    def dataclass(self, value: Any, alias: str = "") -> Raw:
        """Binds the fields of a flat dataclass that differ from their defaults; its reference."""
        cls = type(value)
        lines: list[Line] = []
        for field in dataclasses.fields(value):
            has_default = field.default is not dataclasses.MISSING
            own = getattr(value, field.name)
            if not has_default or own != field.default:
                lines.append((field.name, own))
        package, _, last = cls.__module__.rpartition(".")
        self.imports.add(f"from {package} import {last}" + f" as {alias}" * bool(alias))
        if lines:
            self.block(cls.__module__, cls.__name__, *lines, alias=alias)
        return Raw(f"@{alias or last}.{cls.__name__}()")

    def __str__(self) -> str:
        parts = ["from __gin__ import dynamic_registration\n\n"]
        parts += [f"{line}\n" for line in sorted(self.imports)]
        for lines in (self.includes, self.macros):
            parts += ["\n", *(f"{line}\n" for line in lines)] if lines else []
        return "".join(parts) + "".join(f"\n{block}" for block in self.blocks)
