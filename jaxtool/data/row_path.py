"""Paths into a row of data, as `prompt[-1].content`: names, indexes, and `?` for what a row may lack.

  question            the value of a name
  answer.value        a name inside an object
  prompt[-1].content  an index into a list, from the end where it is negative
  ['a.b'].c           a name that holds dots, brackets or blanks
  answer_aliases?     optional: a row without it, or with null there, has nothing

Worked example: `prompt[-1].content` of {"prompt": [{"role": "user", "content": "1+1?"}]} is "1+1?".
Not covered: wildcards and filters; what the value means (`layouts`).
"""

import dataclasses
import functools
import re
from collections.abc import Collection, Mapping
from typing import Any

_STEP = re.compile(
    r"(?P<name>(?:\A|(?<=\.))[^\W\d][\w-]*|(?<=\.)\d[\w-]*)"  # after a dot, or at the beginning
    r"|\[(?P<index>-?\d+)\]"
    r"|\[(?P<quote>['\"])(?P<quoted>[^'\"]+)(?P=quote)\]"
)
_SHOWN_CHARS = 40
_FORM = "write names with dots and indexes in brackets, as prompt[-1].content or answer.aliases?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowPath:
    """Where in a row a value stands."""

    text: str  # as it was written
    steps: tuple[str | int, ...]  # names and indexes; the first is a name
    is_optional: bool

    @property
    def column(self) -> str:
        """The name in the row itself: the column that a table has to give."""
        return str(self.steps[0])

    def value(self, row: Mapping[str, Any], where: str, columns: Collection[str] = ()) -> Any:
        """What stands there; None where an optional path leads nowhere.

        Args:
          row: the values by name.
          where: file and row, for the message.
          columns: all names that the row has, where `row` holds only some of them.

        Raises:
          ValueError: there is nothing; one line with file, row, path, and what is there instead.
        """
        value: Any = row
        for number, step in enumerate(self.steps):
            found = _step_into(value, step)
            if found is _NOTHING or (found is None and self.is_optional):
                if self.is_optional:
                    return None
                names = columns if number == 0 and columns else ()
                raise ValueError(f"{where}: no {self.text}: {self._instead(number, value, names)}")
            value = found
        return value

    def _instead(self, number: int, value: Any, columns: Collection[str]) -> str:
        """What the row has where step `number` found nothing, as a clause."""
        prefix = as_written(self.steps[:number]) or "the row"
        step = self.steps[number]
        if isinstance(value, Mapping):
            names = list(columns or value)
            if number == 0 and self.text in names:
                return f"the row has that name as a whole: write ['{self.text}']"
            shown = ", ".join(map(repr, names)) or "nothing"
            as_index = "; an index needs a list" if isinstance(step, int) else ""
            return f"{prefix} has {shown}{as_index}"
        if isinstance(value, list):
            rest = as_written(self.steps[number:]).removeprefix(".")
            if isinstance(step, str) and not step.isdecimal():
                return f"{prefix} is a list of {len(value)}: write {prefix}[0].{rest} or [-1]"
            if isinstance(step, str):
                after = as_written((int(step), *self.steps[number + 1 :]))
                return f"{prefix} is a list of {len(value)}: write {prefix}{after}"
            return f"{prefix} is a list of {len(value)}"
        kind = "null" if value is None else f"{str(value)[:_SHOWN_CHARS]!r}"
        return f"{prefix} is {kind}"


_NOTHING = object()


@functools.cache
def row_path(text: str) -> RowPath:
    """The path that a text writes.

    Raises:
      ValueError: it is none.
    """
    is_optional = text.endswith("?")
    body = text.removesuffix("?")
    steps: list[str | int] = []
    at = 0
    while at < len(body):
        if steps and body[at] == "." and at + 1 < len(body):
            at += 1
        match = _STEP.match(body, at)
        if match is None:
            raise ValueError(f"{text!r} is no path into a row, from {body[at:]!r} on: {_FORM}")
        if match["index"] is not None:
            steps.append(int(match["index"]))
        else:
            steps.append(match["name"] or match["quoted"])
        at = match.end()
    if not steps or isinstance(steps[0], int):
        raise ValueError(f"{text!r} is no path into a row: it begins with a name; {_FORM}")
    return RowPath(text=text, steps=tuple(steps), is_optional=is_optional)


def as_written(steps: tuple[str | int, ...]) -> str:
    """The text of some steps: ("prompt", -1, "content") is `prompt[-1].content`."""
    parts: list[str] = []
    for step in steps:
        if isinstance(step, int):
            parts.append(f"[{step}]")
        elif re.fullmatch(r"[^\W\d][\w-]*", step):
            parts.append(f".{step}" if parts else step)
        else:
            parts.append(f"['{step}']")
    return "".join(parts)


def _step_into(value: Any, step: str | int) -> Any:
    if isinstance(step, str):
        return value.get(step, _NOTHING) if isinstance(value, Mapping) else _NOTHING
    if isinstance(value, list) and -len(value) <= step < len(value):
        return value[step]
    return _NOTHING
