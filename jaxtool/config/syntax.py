"""Words of the configuration loader: places in files, references, bindings, bound functions.

Knows neither gin nor the types of fields.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any


class ConfigError(ValueError):
    """A mistake in a configuration; the message is one line with file, line and remedy."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Place:
    """Where a statement was written: a line of a file, or a parameter of the command line."""

    file: str = ""  # as shown to people; empty for the command line
    line: int = 0  # 1 is the first line
    param: str = ""  # the text after --gin_param, empty in a file

    def __str__(self) -> str:
        return f"--gin_param '{self.param}'" if self.param else f"{self.file}:{self.line}"


@dataclasses.dataclass(frozen=True)
class OldNames:
    """Names that files of before may hold, with what they are called now."""

    # A module, "Class", "Class.field", or "Class.field = 'value'" -> the name of today.
    table: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def refuse(self, place: Place, *names: str) -> None:
        """Raises ConfigError for the first of `names` that is an old one."""
        for name in names:
            if name in self.table:
                raise ConfigError(f"{place}: {name} is an old name; write {self.table[name]}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reference:
    """`@scope/module.name` or, with `is_call`, `@scope/module.name()`."""

    scope: tuple[str, ...]  # empty: the scope of the reader
    name: str = dataclasses.field(compare=False)  # as written
    target: Callable[..., Any]
    is_call: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class MacroUse:
    """`%NAME`."""

    name: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Binding:
    """`scope/name.parameter = value`, or the macro `name = value` where `target` is None."""

    scope: tuple[str, ...]
    name: str  # as written: the module and configurable, or the macro
    parameter: str  # empty for a macro
    target: Callable[..., Any] | None
    value: Any  # literals, containers, Reference, MacroUse
    place: Place
    layer: int = 0  # 0: the run file and what it includes; 1, 2, ...: the overlays, in their order

    @property
    def key(self) -> tuple[tuple[str, ...], Callable[..., Any] | str, str]:
        """Bindings with the same key override each other."""
        return (self.scope, self.name if self.target is None else self.target, self.parameter)

    def __str__(self) -> str:
        return "/".join([*self.scope, f"{self.name}.{self.parameter}".rstrip(".")])


@dataclasses.dataclass(frozen=True)
class BoundFunction:
    """A function with some keyword arguments bound: a `functools.partial` that compares by value."""

    function: Callable[..., Any]
    arguments: tuple[tuple[str, Any], ...]  # sorted by name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **{**dict(self.arguments), **kwargs})


def nested_uses(value: Any) -> list[Reference | MacroUse]:
    """References and macros anywhere inside a written value."""
    if isinstance(value, Reference | MacroUse):
        return [value]
    if isinstance(value, dict):
        return [use for pair in value.items() for item in pair for use in nested_uses(item)]
    if isinstance(value, list | tuple):
        return [use for item in value for use in nested_uses(item)]
    return []
