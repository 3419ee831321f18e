"""A composed configuration as gin text in which each value says where it was set.

The text is for people, and the loader reads it: it builds an equal object. Equal parts are written
once, with the places of the first.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.config import loader

DEFAULT = "default"  # stands behind what no file and no parameter sets
_COMMENT_COLUMN = 56


@dataclasses.dataclass(frozen=True, kw_only=True)
class SetValue:
    """One value of a composed configuration."""

    value: str  # as gin text
    origin: (
        str  # "FILE:LINE", "--gin_param '...'" or "default"; the place of a macro in parentheses
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
    """A composed configuration, value by value."""

    config: Any
    text: str
    values: Mapping[str, SetValue]  # by name: scope/module.Class.field


def listing(
    target: Any,
    *,
    files: Sequence[str | pathlib.Path],
    params: Sequence[str] = (),
    old_names: loader.OldNames = loader.NO_OLD_NAMES,
) -> Listing:
    """What `loader.load` builds, and where each of its values was set."""
    config, builder = loader.compose(target, files, params, old_names)
    values: dict[str, SetValue] = {}

    def annotate(built: Any, parameter: str, line: str) -> str:
        name, _, value = line.partition(" = ")
        origin = " ".join((builder.origin(built, parameter) or DEFAULT).split())
        values[name] = SetValue(value=value, origin=origin)
        return f"{line:<{_COMMENT_COLUMN}}  # {origin}"

    text = loader.operative_config(config, annotate)
    return Listing(config=config, text=text, values=values)
