"""Writes a built configuration as a gin file that builds an equal one.

A full record: every parameter of every part, defaults included, also where Python changed a value
after loading. Covers literals, enums, paths, containers, dataclasses, functions and classes of
modules, and bound functions; refuses anything else by name, because a record with holes is none.
"""

import dataclasses
import enum
import inspect
import math
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Callable
from typing import Any

from jaxtool.config.build import parameters_of
from jaxtool.config.syntax import BoundFunction, ConfigError

RECORD_NAME = "operative_config.gin"
NO_COMMIT = "none (not run from a git checkout)"


# (object, parameter, line that sets it) -> the line as it is written
Annotate = Callable[[Any, str, str], str]


def operative_config(config: Any, annotate: Annotate | None = None) -> str:
    """Gin text that `loader.load` turns into an object equal to `config`.

    Args:
      annotate: adds a comment to the line of a value; None: no comments.

    Raises:
      ConfigError: on a value that gin text cannot express, naming its field.
    """
    part = _part_of(config)
    if part is None:
        raise ConfigError(f"{config!r} is no configuration; pass what loader.load returned")
    record = _Record(annotate)
    record.count(config, "")
    record.write(config, part, "", scope="")
    module, qualname = part.target.__module__, part.target.__qualname__
    imports = [
        f"import {module} as {alias}" if alias != module else f"import {module}"
        for module, alias in sorted(record.aliases.items())
    ]
    blocks = "\n".join(record.blocks)
    return (
        f"# target: {module}.{qualname}\nfrom __gin__ import dynamic_registration\n"
        + "".join(f"{line}\n" for line in imports)
        + f"\n{blocks}"
    )


def write_operative_config(workdir: str | pathlib.Path, config: Any) -> pathlib.Path:
    """Writes WORKDIR/operative_config.gin, headed by the git commit of this code."""
    path = pathlib.Path(workdir) / RECORD_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    header = f"# The configuration of this run with all defaults.\n# commit: {git_commit()}\n"
    text = header + operative_config(config)
    temporary = path.with_name(f"{path.name}.unfinished")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
    return path


def git_commit() -> str:
    """Commit of the checkout that holds this file, and whether its files were changed."""
    root = pathlib.Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return NO_COMMIT
    try:
        commit = _git(root, "rev-parse", "HEAD")
        changed = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return NO_COMMIT
    return f"{commit} with uncommitted changes" if changed else commit


def _git(root: pathlib.Path, *args: str) -> str:
    command = ["git", "-C", str(root), *args]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    return done.stdout.strip()


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Part:
    """A configurable with the arguments that build a value."""

    target: Callable[..., Any]
    arguments: dict[str, Any]
    is_call: bool


def _part_of(value: Any) -> _Part | None:
    """How a value is built, or None for a literal or container."""
    if isinstance(value, BoundFunction):
        return _Part(target=value.function, arguments=dict(value.arguments), is_call=False)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        arguments = {name: getattr(value, name) for name in fields}
        return _Part(target=type(value), arguments=arguments, is_call=True)
    if callable(value) and not isinstance(value, enum.Enum):
        return _Part(target=value, arguments={}, is_call=False)
    return None


class _Record:
    """Blocks of bindings, one for each distinct part, and the imports that they need."""

    def __init__(self, annotate: Annotate | None) -> None:
        self._annotate = annotate
        self.blocks: list[str] = []
        self.aliases: dict[str, str] = {}  # module -> name in the file
        self._distinct: dict[Any, list[Any]] = {}  # target -> its different values
        self._scopes: dict[Any, list[tuple[Any, str]]] = {}  # target -> (value, scope) written

    def count(self, value: Any, field: str) -> None:
        """Collects the different values of each configurable: two or more need scopes."""
        part = _part_of(value)
        if part is None:
            for name, item in _items(value, field):
                self.count(item, name)
            return
        values = self._distinct.setdefault(_identity(part.target, field), [])
        if value not in values:
            values.append(value)
        for name, argument in part.arguments.items():
            self.count(argument, f"{field}.{name}".lstrip("."))

    def write(self, value: Any, part: _Part, field: str, scope: str) -> str:
        """Writes the block of a part, unless an equal one is there; returns its name."""
        target = _identity(part.target, field)
        written = self._scopes.setdefault(target, [])
        for other, other_scope in written:
            if other == value:
                return f"{other_scope}{self._name(part.target, field)}"
        written.append((value, scope))
        name = f"{scope}{self._name(part.target, field)}"
        position = len(self.blocks)
        lines = []
        if not part.is_call:
            lines += [f"# {name}.{line}\n" for line in _unbound_defaults(part)]
        for parameter, argument in part.arguments.items():
            inner = f"{field}.{parameter}".lstrip(".")
            line = f"{name}.{parameter} = {self.text(argument, inner)}"
            if self._annotate is not None:
                line = self._annotate(value, parameter, line)
            lines.append(f"{line}\n")
        if lines:
            self.blocks.insert(position, "".join(lines))
        return name

    def text(self, value: Any, field: str) -> str:
        """A value as gin text; parts become references."""
        part = _part_of(value)
        if part is not None:
            is_scoped = bool(part.arguments) and len(self._distinct[part.target]) > 1
            scope = f"{self._free_scope(field)}/" if is_scoped else ""
            return f"@{self.write(value, part, field, scope)}{'()' if part.is_call else ''}"
        if isinstance(value, enum.Enum):
            return repr(value.value if isinstance(value.value, str) else value.name)
        if isinstance(value, pathlib.PurePath):
            return repr(str(value))
        if isinstance(value, float) and not math.isfinite(value):
            if math.isnan(value):
                raise ConfigError(f"{field} is nan, which gin text cannot express")
            return "1e999" if value > 0 else "-1e999"
        if value is None or type(value) in (bool, int, float, str):
            return repr(value)
        return self._container(value, field)

    def _free_scope(self, field: str) -> str:
        scope = field.replace(".", "_")
        taken = {name for written in self._scopes.values() for _, name in written}
        while f"{scope}/" in taken:
            scope += "_"
        return scope

    def _container(self, value: Any, field: str) -> str:
        texts = [self.text(item, name) for name, item in _items(value, field)]
        if isinstance(value, dict):
            pairs = zip(texts[::2], texts[1::2], strict=True)
            return "{" + ", ".join(f"{key}: {item}" for key, item in pairs) + "}"
        if isinstance(value, tuple):
            return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"
        return f"[{', '.join(texts)}]"

    def _name(self, target: Callable[..., Any], field: str) -> str:
        """Dotted name of a configurable in this file; imports its module."""
        module = _identity(target, field).__module__
        if module not in self.aliases:
            alias = module.rpartition(".")[2]
            if alias in self.aliases.values() or alias == "gin":
                alias = module.replace(".", "_")
            self.aliases[module] = alias
        return f"{self.aliases[module]}.{target.__qualname__}"


def _unbound_defaults(part: _Part) -> list[str]:
    """Defaults that a function's caller may still override: told in comments, not bound."""
    return [
        f"{parameter.name} = {parameter.default!r} by default"
        for parameter in parameters_of(part.target).values()
        if parameter.name not in part.arguments and parameter.default is not inspect.Parameter.empty
    ]


def _identity(target: Any, field: str) -> Any:
    """The class or function itself; refuses what no module holds by name."""
    found: Any = None
    if isinstance(target, type | types.FunctionType | types.BuiltinFunctionType):
        found = sys.modules.get(target.__module__)
        for name in target.__qualname__.split("."):
            found = vars(found).get(name) if found is not None else None
    if found is not target or target.__module__ == "__main__":
        raise ConfigError(
            f"{field or 'the configuration'} is {target!r}, which gin text cannot express; use a "
            "frozen dataclass or a function of a module"
        )
    return target


def _items(value: Any, field: str) -> list[tuple[str, Any]]:
    """Direct contents of a container with their field names; keys before values in a dict."""
    if isinstance(value, dict):
        pairs = enumerate(value.items())
        return [(f"{field}.{i}", item) for i, pair in pairs for item in pair]
    if isinstance(value, tuple | list):
        return [(f"{field}.{i}", item) for i, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"{field}.{i}", item) for i, item in enumerate(sorted(value, key=repr))]
    if value is None or isinstance(value, bool | int | float | str | enum.Enum | pathlib.PurePath):
        return []
    raise ConfigError(
        f"{field} is {value!r} ({type(value).__name__}), which gin text cannot express; use a "
        "frozen dataclass or a function of a module"
    )
