"""What an MCP server says of its tools, and what a menu makes of it: names, descriptions, schemas.

Knows no protocol and no connection. A name that the server writes with other characters than letters, digits, _ and -
(a dot, a slash) is written with _ there; two names that become one are refused.
"""

import dataclasses
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

_OTHER = re.compile(r"[^A-Za-z0-9_-]")
_MAX_NAME = 64


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offered:
    """One tool as the server offers it."""

    name: str
    description: str
    schema: str  # of its arguments, as JSON in the server's order

    @property
    def parameters(self) -> dict[str, Any]:
        """The schema, less the address of its dialect; with `properties`, which chat templates look for."""
        schema = json.loads(self.schema)
        schema.pop("$schema", None)
        return schema if "properties" in schema else {**schema, "properties": {}}


def offered(name: str, description: str | None, schema: Mapping[str, Any]) -> Offered:
    """Of what stands in the server's list."""
    text = json.dumps(schema, ensure_ascii=False)
    return Offered(name=name, description=(description or "").strip(), schema=text)


def chosen(
    listed: Sequence[Offered], only: Sequence[str], prefix: str, title: str
) -> dict[str, Offered]:
    """The tools that a menu takes, by the name that a policy writes, in the server's order.

    Example: "fs.read" with the prefix "disk_" is "disk_fs_read".

    Args:
      only: the server's names of those to take; empty: all.
      title: of the server, for messages.

    Raises:
      ValueError: there is no tool, an unknown name in `only`, or two tools of one name.
    """
    names = [one.name for one in listed]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{title} offers two tools called {twice!r}: mend the server")
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ValueError(
            f"Mcp.only: {title} has no tool {unknown[0]!r}; it has {', '.join(names) or 'none'}"
        )
    if not listed:
        raise ValueError(f"{title} offers no tools: look at its flags, or leave it out")
    menu: dict[str, Offered] = {}
    for one in listed:
        if only and one.name not in only:
            continue
        name = prefix + _OTHER.sub("_", one.name)
        if not one.name or len(name) > _MAX_NAME:
            raise ValueError(
                f"{title}: the name {name!r} must have 1 to {_MAX_NAME} characters: leave the tool out "
                "by Mcp.only"
            )
        if name in menu:
            raise ValueError(
                f"{title}: {menu[name].name!r} and {one.name!r} are both called {name!r} in the menu: "
                "leave one out by Mcp.only"
            )
        menu[name] = one
    return menu


def broken_by(wanted: Sequence[Offered], listed: Sequence[Offered]) -> str:
    """Why the tools of a run cannot be called as its prompts say; empty if they can."""
    found = {one.name: one for one in listed}
    for one in wanted:
        if one.name not in found:
            return f"the tool {one.name!r} is gone"
        if json.loads(found[one.name].schema) != json.loads(one.schema):
            return f"the arguments of the tool {one.name!r} have changed"
    return ""


def differences(wanted: Sequence[Offered], listed: Sequence[Offered]) -> list[str]:
    """What else has changed, which a run can live with: other words, as its prompts have the old ones."""
    found = {one.name: one for one in listed}
    return [
        f"the description of the tool {one.name!r} has changed"
        for one in wanted
        if one.name in found and found[one.name].description != one.description
    ]
