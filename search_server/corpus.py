"""Rows of a corpus: JSON lines, gzipped or not, and Parquet. Every fault names the file and the line or row.

A row is `{"id", "contents"}` as Search-R1 has it, where the first line of the contents is the title in quotes, or
`{"title", "text"}`. The id may be text or a whole number; without one a row gets its number, counted from 0 over all files.
Other columns are not kept.
"""

import array
import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
import zlib
from collections.abc import Iterator, Sequence

import numpy as np

from search_server.progress import Progress

MOST_CONTENT_BYTES = 1 << 20  # of one row: a passage, not a book
_MOST_LINE_BYTES = 16 << 20  # other columns of a row count here
_KINDS = (".jsonl", ".jsonl.gz", ".json.gz", ".parquet")
_SURROGATES = re.compile("[\ud800-\udfff]")
_READ_ROWS = 1024  # of a Parquet file at once


class BadCorpus(ValueError):
    """A corpus that cannot be served; the message is one line for the person who made it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """A passage as it is answered."""

    id: str
    title: str  # without quotes
    text: str
    contents: str  # the title in quotes, a line break, the text

    def as_json(self) -> str:
        return json.dumps({"id": self.id, "contents": self.contents}, ensure_ascii=False)


def clean(text: str) -> str:
    """Half a surrogate pair, which JSON can spell and UTF-8 cannot, becomes U+FFFD."""
    return _SURROGATES.sub("\ufffd", text)


def check_files(paths: Sequence[pathlib.Path]) -> None:
    """Raises unless each is a file of a known kind."""
    for path in paths:
        if not path.is_file():
            raise BadCorpus(f"{path}: no such file")
        if not path.name.endswith(_KINDS):
            raise BadCorpus(f"{path}: the name must end in one of {', '.join(_KINDS)}")
    if len({path.resolve() for path in paths}) < len(paths):
        raise BadCorpus(f"a corpus file is given twice: {', '.join(map(str, paths))}")


def documents(paths: Sequence[pathlib.Path], skip: int = 0) -> Iterator[tuple[str, Document]]:
    """Where each document stands (`file:line`), and the document; the first `skip` rows are not looked at."""
    number = 0
    for path in paths:
        for place, row in _rows(path):
            if number >= skip:
                yield place, document(row, number, place)
            number += 1


def check_rows(paths: Sequence[pathlib.Path]) -> int:
    """Reads every row; how many there are. Raises at the first bad one, at a double id, and if there is none."""
    hashes = array.array("Q")  # 8 bytes a row; ids whose hashes are equal are compared below
    for _, row in Progress("rows checked").over(documents(paths)):
        hashes.append(_hash(row.id))
    if not hashes:
        raise BadCorpus(f"{', '.join(map(str, paths))}: the corpus is empty")
    ordered = np.sort(np.frombuffer(hashes, np.uint64))
    doubles = set(ordered[1:][ordered[1:] == ordered[:-1]].tolist())
    first: dict[str, str] = {}
    for place, row in documents(paths) if doubles else ():
        if _hash(row.id) in doubles and first.setdefault(row.id, place) != place:
            raise BadCorpus(f"{place}: the id {row.id!r:.80} is that of {first[row.id]} already")
    return len(hashes)


def _hash(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little")


def _rows(path: pathlib.Path) -> Iterator[tuple[str, object]]:
    return _parquet_rows(path) if path.name.endswith(".parquet") else _json_rows(path)


def _json_rows(path: pathlib.Path) -> Iterator[tuple[str, object]]:
    """Parsed lines; empty ones are left out."""
    line_number = 0
    try:
        with gzip.open(path, "rb") if path.suffix == ".gz" else open(path, "rb") as file:
            while line := file.readline(_MOST_LINE_BYTES + 1):
                line_number += 1
                if len(line) > _MOST_LINE_BYTES:
                    most = f"{_MOST_LINE_BYTES:,} bytes"
                    raise BadCorpus(f"{path}:{line_number}: the line is longer than {most}")
                if not line.strip():
                    continue
                place = f"{path}:{line_number}"
                try:
                    yield place, json.loads(line.removeprefix(b"\xef\xbb\xbf"))
                except UnicodeDecodeError as error:
                    raise BadCorpus(f"{place}: not UTF-8: {error.reason}") from error
                except (ValueError, RecursionError) as error:
                    raise BadCorpus(f"{place}: not JSON: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise BadCorpus(f"{path}:{line_number + 1}: damaged gzip: {error}") from error


def _parquet_rows(path: pathlib.Path) -> Iterator[tuple[str, object]]:
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            known = ("id", "contents", "title", "text")
            columns = [name for name in file.schema_arrow.names if name in known]
            if not columns:
                raise BadCorpus(f"{path}: has none of the columns {', '.join(known)}")
            for batch in file.iter_batches(batch_size=_READ_ROWS, columns=columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadCorpus(f"{path}:{number + 1}: damaged Parquet: {reason}") from error


def document(row: object, number: int, place: str) -> Document:
    """The document of a row, which is the `number`th and stands at `place`; raises BadCorpus."""
    if not isinstance(row, dict):
        raise BadCorpus(f"{place}: a row must be an object, not {type(row).__name__}")
    name = row.get("id")
    if name is None:
        name = number
    if isinstance(name, bool) or not isinstance(name, str | int) or name == "":
        raise BadCorpus(f"{place}: id must be text or a whole number, not {name!r:.80}")
    if row.get("contents") is not None:
        contents = clean(_text(row, "contents", place))
        title, _, text = contents.partition("\n")
        if not text.strip():  # a passage without a title
            title, text = "", contents
            contents = f'""\n{text}'
    else:
        if row.get("text") is None:
            keys = ", ".join(map(repr, row)) or "none"
            raise BadCorpus(
                f"{place}: needs 'contents', or 'text' and 'title'; its keys: {keys:.200}"
            )
        text = clean(_text(row, "text", place))
        title = clean(_text(row, "title", place)) if row.get("title") is not None else ""
        title = " ".join(title.split())  # a line break in it would end it
        contents = f'"{title}"\n{text}'
    if not text.strip():
        raise BadCorpus(f"{place}: the passage has no text")
    if len(contents) > MOST_CONTENT_BYTES or len(contents.encode()) > MOST_CONTENT_BYTES:
        raise BadCorpus(
            f"{place}: the passage is longer than {MOST_CONTENT_BYTES:,} bytes: cut it up"
        )
    return Document(
        id=clean(str(name)), title=title.strip().strip('"'), text=text, contents=contents
    )


def _text(row: dict, key: str, place: str) -> str:
    value = row[key]
    if not isinstance(value, str):
        raise BadCorpus(f"{place}: {key} must be text, not {type(value).__name__}")
    return value
