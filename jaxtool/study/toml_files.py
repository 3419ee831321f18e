"""A TOML file as checked values: every key is known and of its type, and faults are one line with file and line."""

import dataclasses
import difflib
import re
import tomllib
import typing
from collections.abc import Mapping
from typing import Any

from jaxtool.config.types import coerce, type_name


class TomlFile:
    """The text of a file, its values, and where they stand.

    Args:
      file: the name that faults begin with.

    Raises:
      ValueError: not UTF-8, or not TOML.
    """

    def __init__(self, file: str, raw: bytes) -> None:
        self.file = file
        try:
            self._text = raw.decode("utf-8-sig").replace("\r\n", "\n")
            self.values: Mapping[str, Any] = tomllib.loads(self._text)
        except UnicodeDecodeError as error:
            raise ValueError(f"{file}: not UTF-8 at byte {error.start}: save it as UTF-8") from None
        except tomllib.TOMLDecodeError as error:
            raise ValueError(f"{file}: not TOML: {error}") from None

    def made(
        self, kind: type, values: Mapping[str, Any], line: int, where: str, **ready: Any
    ) -> Any:
        """An object of the values, with fields that are made already.

        Raises:
          ValueError: a key that is unknown, missing or of another type.
        """
        hints = typing.get_type_hints(kind)
        fields = {field.name: field for field in dataclasses.fields(kind)}
        given: dict[str, Any] = dict(ready)
        for key, value in values.items():
            if key not in fields or key in ready:
                known = [name for name in fields if name not in ready]
                raise self.fault(line, f"{where} has no key {key!r}: {meant(key, known)}")
            try:
                given[key] = coerce(value, hints[key])
            except TypeError as error:
                raise self.fault(line, f"{where}.{key}: {error}") from None
        for key, field in fields.items():
            has_default = field.default is not field.default_factory
            if key not in given and not has_default:
                raise self.fault(
                    line, f"{where}.{key} is missing: write it, a {type_name(hints[key])}"
                )
        return kind(**given)

    def line(self, header: str, number: int = 0) -> int:
        """The line on which the n-th such header or key stands; 1 where it is written another way."""
        starts = [
            i for i, line in enumerate(self._text.split("\n"), 1) if line.strip().startswith(header)
        ]
        return starts[number] if number < len(starts) else 1

    def line_of_key(self, key: str, table: str = "") -> int:
        """The line of `key = ...`, quoted or not, in a table or before all tables; else that of the table's header."""
        here = ""
        for number, line in enumerate(self._text.split("\n"), 1):
            if header := re.match(r"\s*\[+([^\[\]]+)\]+", line):
                here = header[1].strip()
                continue
            name, equals, _ = line.partition("=")
            written = re.sub(r"[\s\"']", "", name)
            full = f"{here}.{written}" if here else written
            if equals and full == (f"{table}.{key}" if table else key):
                return number
        return self.line(f"[{table}]") if table else 1

    def line_of_text(self, text: str, start: int) -> int:
        """The first line from `start` on that holds the text; `start` where it is written another way."""
        lines = self._text.split("\n")
        return next((i for i in range(start, len(lines) + 1) if text in lines[i - 1]), start)

    def fault(self, line: int, message: str) -> ValueError:
        return ValueError(f"{self.file}:{line}: {message}")


def meant(name: str, known: list[str]) -> str:
    """The remedy of an unknown name: the nearest known one, or all of them."""
    near = difflib.get_close_matches(name, known, 1)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
