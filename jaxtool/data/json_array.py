"""The objects of one large JSON array, one after the other, without the whole text in memory.

Not covered: files, gzip and encodings (`rows`).
"""

import dataclasses
import json
from collections.abc import Iterator
from typing import Any, TextIO

from jaxtool.core.files import one_line
from jaxtool.core.json_lines import without_repeats

_CHUNK_CHARS = 1 << 20
_BLANKS = " \t\r\n"


def array_objects(text: TextIO, where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number from 1, object) of each entry, decoded as soon as it is whole.

    `[{"a": 1}, {"a": 2}]` -> (1, {"a": 1}), (2, {"a": 2}). An object is whole when it decodes, because it ends
    in its own brace; until then more text is read, twice as much each time.

    Args:
      text: begins with the bracket, or with blanks in front of it.
      where: the file, for messages.

    Raises:
      ValueError: this is no JSON, or an entry is no object; one line with file and row.
    """
    decoder = json.JSONDecoder(object_pairs_hook=without_repeats)
    window = _Window(buffer=text.read(_CHUNK_CHARS))
    window.at = window.skip(0) + 1  # behind the bracket
    number, chunk = 0, _CHUNK_CHARS
    while True:
        # 1) To the next object, over one comma between two; a bracket ends the array.
        place = f"{where}: row {number + 1}"
        window.to_next()
        if window.is_at_end:
            rest = (window.buffer[window.at + 1 :] + text.read(_CHUNK_CHARS)).strip()
            if rest:
                raise ValueError(f"{where}: text follows the array: {rest[:40]!r}")
            return
        if window.needs_comma and window.next_character:
            raise ValueError(f"{place}: no JSON: a comma is missing in front of it")
        # 2) The object, or more text where it is cut.
        try:
            values, end = decoder.raw_decode(window.buffer, window.at)
        except json.JSONDecodeError as error:
            more = text.read(chunk)
            if not more:
                raise ValueError(f"{place}: no JSON: {error.msg}") from None
            window.buffer, window.at, chunk = window.buffer[window.at :] + more, 0, 2 * chunk
            continue
        except (RecursionError, ValueError) as error:
            raise ValueError(f"{place}: no JSON: {one_line(error, 80)}") from None
        if not isinstance(values, dict):
            shown = window.buffer[window.at : end][:40]
            raise ValueError(f"{place}: a row must be an object, not {shown}")
        number, chunk = number + 1, _CHUNK_CHARS
        window.pass_object(end)
        yield number, values


@dataclasses.dataclass(kw_only=True)
class _Window:
    """The text that was read and is not decoded yet."""

    buffer: str
    at: int = 0
    is_first: bool = True  # no object was decoded yet
    needs_comma: bool = False  # in front of the next object

    @property
    def next_character(self) -> str:
        """ "" where the text that was read ends."""
        return self.buffer[self.at : self.at + 1]

    @property
    def is_at_end(self) -> bool:
        """At the bracket that ends the array; not behind a comma."""
        return self.next_character == "]" and (self.is_first or self.needs_comma)

    def to_next(self) -> None:
        self.at = self.skip(self.at)
        if self.needs_comma and self.next_character == ",":
            self.needs_comma, self.at = False, self.skip(self.at + 1)

    def pass_object(self, end: int) -> None:
        """Goes behind an object; what was decoded leaves the memory, now and then."""
        self.at, self.is_first, self.needs_comma = end, False, True
        if self.at > _CHUNK_CHARS:
            self.buffer, self.at = self.buffer[self.at :], 0

    def skip(self, at: int) -> int:
        """The first place from `at` on that is not blank."""
        while at < len(self.buffer) and self.buffer[at] in _BLANKS:
            at += 1
        return at
