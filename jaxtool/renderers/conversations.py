"""Conversations of a file or hub set: `messages` of system, user, assistant and tool, every turn kept in order.

What cannot be kept is refused by name, with file, row and key: roles that nobody knows, parts of content
that are no text, turns out of order, a call without its result. Not covered: how a structured call is
written (`structured_calls`), tokens (`demonstrations`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from jaxtool.core.calls import Call, ToolSpec
from jaxtool.core.json_lines import check_unicode
from jaxtool.data.rows import read_rows, stem_of
from jaxtool.renderers.structured_calls import call_of, tools_of

Role = Literal["system", "user", "assistant", "tool"]
_ROLES: tuple[Role, ...] = get_args(Role)

# Who may speak behind whom; None is the beginning.
_FOLLOWS: dict[str | None, tuple[Role, ...]] = {
    None: ("system", "user"),
    "system": ("user",),
    "user": ("assistant",),
    "assistant": ("user", "tool"),
    "tool": ("assistant",),
}
_READ_KEYS: dict[Role, set[str]] = {
    "system": {"role", "content"},
    "user": {"role", "content"},
    "assistant": {"role", "content", "tool_calls"},
    "tool": {"role", "content", "name", "tool_call_id"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Turn:
    """What one side said; never empty."""

    role: Role
    text: str  # "" where there is a call alone
    key: str  # in the row, for example messages[2]
    call: Call | None = None  # that an assistant wrote as structure, behind the text
    call_id: str = ""  # of that call, or of the one that a tool says it answers
    tool: str = ""  # that a tool's turn names


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversation:
    """The turns of one row: a system's or none, then a user's first and an assistant's last."""

    where: str  # file:line, or file and row
    name: str  # the file's stem and the number of the line or row
    turns: tuple[Turn, ...]
    tools: tuple[ToolSpec, ...] = ()  # that the row names

    @property
    def system(self) -> str:
        return self.turns[0].text if self.turns[0].role == "system" else ""

    @property
    def spoken(self) -> tuple[Turn, ...]:
        """All turns but the system's."""
        return self.turns[1:] if self.turns[0].role == "system" else self.turns

    @property
    def question(self) -> str:
        return self.spoken[0].text


def read_conversations(path: str | Path) -> list[Conversation]:
    """One conversation a row: {"messages": [{"role", "content"}, ...], "tools": [...]}, the last if it has some.

    Args:
      path: a file, parquet or JSONL or JSON, or the name of a set on the hub; see `jaxtool.data.rows`.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: naming file, row and key of what cannot be read.
      OSError: a hub set cannot be had.
    """
    stem = stem_of(path)
    return [
        Conversation(
            where=row.where,
            name=f"{stem}/{row.number}",
            turns=_turns(row.values, row.where),
            tools=tools_of(row.values.get("tools"), row.where),
        )
        for row in read_rows(path, ("messages", "tools"))
    ]


def _turns(row: Mapping[str, Any], where: str) -> tuple[Turn, ...]:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        kind = "has no key" if "messages" not in row else f"has {str(messages)[:40]!r} for key"
        raise ValueError(
            f"{where}: the row {kind} 'messages'; a list of a user and an assistant message is needed"
        )
    turns = tuple(_turn(entry, f"messages[{i}]", where) for i, entry in enumerate(messages))
    before: Role | None = None
    for number, turn in enumerate(turns):
        if turn.role not in (allowed := _FOLLOWS[before]):
            behind = "at the beginning" if before is None else f"behind a turn of the {before}"
            raise ValueError(
                f"{where}: {turn.key} is a turn of the {turn.role} {behind}; expected "
                f"{' or '.join(allowed)}"
            )
        if number and (caller := turns[number - 1]).call is not None:
            _check_answers(turn, caller, where)
        before = turn.role
    if before != "assistant":
        raise ValueError(
            f"{where}: the row needs a user and an assistant message, the assistant's last, and ends in "
            f"{turns[-1].key} of the {before}"
        )
    return turns


def _turn(entry: object, key: str, where: str) -> Turn:
    if not isinstance(entry, dict):
        raise ValueError(f"{where}: {key} is {str(entry)[:40]!r}; an object is needed")
    said, text = entry.get("role"), entry.get("content")
    role: Role | None = next((known for known in _ROLES if known == said), None)
    if role is None:
        raise ValueError(f"{where}: {key}.role is {said!r}; known: {', '.join(_ROLES)}")
    if lost := [name for name, value in entry.items() if name not in _READ_KEYS[role] and value]:
        raise ValueError(
            f"{where}: {key} has key {lost[0]!r}, which would be lost: thoughts and the like are read as text "
            "of key 'content', in the renderer's tags"
        )
    call, call_id = None, str(entry.get("tool_call_id") or "")
    if role == "assistant" and entry.get("tool_calls"):
        call, call_id = call_of(entry["tool_calls"], f"{key}.tool_calls", where)
        text = text or ""
    if not isinstance(text, str) or not (text.strip() or call):
        shown = str(text)[:40]
        raise ValueError(f"{where}: {key}.content is {shown!r}; a text that is not empty is needed")
    check_unicode(text, f"{key}.content", where)
    tool = str(entry.get("name") or "") if role == "tool" else ""
    return Turn(
        role=role, text=text if text.strip() else "", key=key, call=call, call_id=call_id, tool=tool
    )


def _check_answers(turn: Turn, caller: Turn, where: str) -> None:
    """Raises ValueError unless `turn` is the result of the call before it."""
    assert caller.call is not None
    if turn.role != "tool":
        raise ValueError(
            f"{where}: {caller.key} calls {caller.call.tool!r}, and {turn.key} is a turn of the {turn.role}: "
            "the result is missing"
        )
    if turn.call_id and caller.call_id and turn.call_id != caller.call_id:
        raise ValueError(
            f"{where}: {turn.key}.tool_call_id is {turn.call_id!r}, and the call before it has "
            f"{caller.call_id!r}"
        )
    if turn.tool and turn.tool != caller.call.tool:
        raise ValueError(
            f"{where}: {turn.key}.name is {turn.tool!r}, and the call before it is of {caller.call.tool!r}"
        )
