"""A built configuration as a flat list of settings, and what two such lists differ in.

Covered: literals, containers, frozen dataclasses, functions with and without bound arguments. A field with
`repr=False` is no setting. Not covered: building an object again from the list (`record` does that, as gin).
"""

import dataclasses
import enum
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jaxtool.config.callables import callable_name
from jaxtool.config.syntax import BoundFunction

# (a built object, one of its parameters) -> where it was set; "" by default or where nobody knows
OriginOf = Callable[[Any, str], str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """One value of a configuration."""

    name: str  # Class.field, as gin writes it
    value: str  # as text: a literal, or the name of a class or function, whose own settings follow
    origin: str = ""  # "FILE:LINE" or "--gin_param '...'"; empty by default or where nobody knows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """A setting that two runs have different values of."""

    path: str  # from the configuration's root: "optimizer.decay.total_steps"
    before: Setting | None  # None: there was no such setting
    now: Setting | None

    @property
    def name(self) -> str:
        known = self.now or self.before
        assert known is not None
        return known.name

    def __str__(self) -> str:
        return f"{self.name}: {_shown(self.before)} -> {_shown(self.now)}"


def settings_of(config: Any, origin: OriginOf | None = None) -> dict[str, Setting]:
    """Every setting by its path, outer ones before their own.

    Example: a run whose optimizer is AdamW gives "optimizer" (RlConfig.optimizer, OptimizerConfig),
    "optimizer.rule" (OptimizerConfig.rule, AdamW) and "optimizer.rule.b1" (AdamW.b1, 0.9).

    Args:
      origin: says where a parameter of a built object was set.
    """
    found: dict[str, Setting] = {}
    _add_fields(found, config, "", origin)
    return found


def default_paths(config: Any, path: str = "") -> set[str]:
    """Paths of the settings that have the default of their field, with all that lies in them."""
    found: set[str] = set()
    for field in dataclasses.fields(config):
        if not (field.init and field.repr):
            continue
        value, here = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        if field.default is not dataclasses.MISSING:
            is_default = value is field.default or value == field.default
        else:
            factory = field.default_factory
            is_default = factory is not dataclasses.MISSING and value == factory()
        if is_default:
            found.add(here)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            found |= default_paths(value, here)
    return found


def changes(before: Mapping[str, Setting], now: Mapping[str, Setting]) -> list[Change]:
    """Where the two differ, by path; what lies inside a part that is another one is left out."""
    found: list[Change] = []
    replaced: list[str] = []
    for path in dict.fromkeys((*now, *before)):
        old, new = before.get(path), now.get(path)
        if (old and old.value) == (new and new.value) or is_inside(path, replaced):
            continue
        replaced.append(path)
        found.append(Change(path=path, before=old, now=new))
    return found


def _shown(setting: Setting | None) -> str:
    if setting is None:
        return "nothing"
    return f"{setting.value} ({setting.origin})" if setting.origin else setting.value


def is_inside(path: str, parts: Sequence[str]) -> bool:
    """Whether a path is one of the parts, or lies in one."""
    return any(path == part or path.startswith((f"{part}.", f"{part}[")) for part in parts)


def _add_fields(found: dict[str, Setting], part: Any, path: str, origin: OriginOf | None) -> None:
    if isinstance(part, BoundFunction):
        owner = callable_name(part).rpartition(".")[2]
        arguments = dict(part.arguments)
    else:
        owner = type(part).__qualname__
        fields = (field for field in dataclasses.fields(part) if field.init and field.repr)
        arguments = {field.name: getattr(part, field.name) for field in fields}
    for name, value in arguments.items():
        where = origin(part, name) if origin is not None else ""
        _add(found, value, f"{path}.{name}".lstrip("."), f"{owner}.{name}", where, origin)


def _add(
    found: dict[str, Setting],
    value: Any,
    path: str,
    name: str,
    where: str,
    origin: OriginOf | None,
) -> None:
    found[path] = Setting(name=name, value=_text(value), origin=where)
    if _has_fields(value):
        _add_fields(found, value, path, origin)
    elif isinstance(value, list | tuple) and any(map(_has_fields, value)):
        for i, item in enumerate(value):
            _add(found, item, f"{path}[{i}]", f"{name}[{i}]", "", origin)


def _has_fields(value: Any) -> bool:
    is_object = dataclasses.is_dataclass(value) and not isinstance(value, type)
    return is_object or isinstance(value, BoundFunction)


def _text(value: Any) -> str:
    """A value without addresses, which differ in every process."""
    if isinstance(value, enum.Enum):
        return repr(value.value)
    if _has_fields(value) or inspect.isroutine(value) or inspect.isclass(value):
        return callable_name(value)
    if isinstance(value, list | tuple):
        texts = [_text(item) for item in value]
        inner = ", ".join(texts) + "," * (len(texts) == 1 and isinstance(value, tuple))
        return f"({inner})" if isinstance(value, tuple) else f"[{inner}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_text(k)}: {_text(v)}" for k, v in value.items()) + "}"
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(_text, value))) + "}"
    if type(value).__repr__ is object.__repr__:
        return callable_name(value)
    return repr(value)
