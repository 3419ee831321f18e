"""Rows of a JSONL file, plain or gzip, each with its line number; every fault is one line with both.

Lines end at "\\n" alone: U+2028, U+0085 and form feeds may stand inside a string. A byte order mark and
"\\r\\n" are read. Other encodings, binary files and one large JSON array are refused, with a remedy.
Not covered: what the keys of a row mean (`problems`, `jaxtool.renderers.conversations`).
"""

import gzip
import json
import math
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

_BOM = b"\xef\xbb\xbf"
_GZIP = b"\x1f\x8b"
_WITH_PANDAS = (
    'python -c "import pandas, sys; pandas.read_{kind}(sys.argv[1]).to_json(sys.argv[2], '
    "orient='records', lines=True)\" {path} {path}.jsonl"
)
# First bytes of a file -> what it is, and what makes JSONL of it.
_BINARY: tuple[tuple[bytes, str, str], ...] = (
    (b"PAR1", "a parquet file", _WITH_PANDAS.replace("{kind}", "parquet")),
    (b"ARROW1", "an arrow file", _WITH_PANDAS.replace("{kind}", "feather")),
    (b"\xff\xff\xff\xff", "an arrow stream", "datasets.Dataset.from_file('{path}').to_json(...)"),
    (b"PK\x03\x04", "a zip archive", "unzip {path}"),
    (b"BZh", "compressed by bzip2", "bunzip2 {path}"),
    (b"\xfd7zXZ", "compressed by xz", "unxz {path}"),
    (b"\x28\xb5\x2f\xfd", "compressed by zstd", "unzstd {path}"),
    (b"version https://git-lfs", "a git-lfs pointer, not the file itself", "git lfs pull"),
    (b"\xff\xfe", "text in UTF-16", "iconv -f UTF-16 -t UTF-8 {path} > {path}.jsonl"),
    (b"\xfe\xff", "text in UTF-16", "iconv -f UTF-16 -t UTF-8 {path} > {path}.jsonl"),
)


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number from 1, object) of each line that is not blank.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is not JSONL in UTF-8, or a line is no JSON object; one line.
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"{path} is a directory: give a JSONL file")
    with path.open("rb") as file:
        head = file.read(64)
        check_is_text(path, head)
        file.seek(0)
        if head.startswith(_GZIP):
            yield from _unzipped_rows(path, file)
        else:
            yield from _rows(path, file)


def as_text(value: object, key: str, where: str) -> str:
    """A text without blanks at its ends, or a number; a float without a fraction as an integer.

    Raises:
      ValueError: the value is something else, empty, not finite, or no text of Unicode.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number and not isinstance(value, str):
        raise ValueError(
            f"{where}: the row has {str(value)[:40]!r} for key {key!r}; a text or a number is needed"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}: key {key!r} is {value}; a finite number is needed")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if not text:
        raise ValueError(f"{where}: key {key!r} is empty")
    check_unicode(text, key, where)
    return text


def check_unicode(text: str, key: str, where: str) -> None:
    """Raises ValueError on half of a surrogate pair, which JSON escapes can write and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{where}: key {key!r} holds half of a surrogate pair, {text[error.start]!a}: it is no "
            "character; write the file again as UTF-8"
        ) from None


def check_is_text(path: Path, head: bytes) -> None:
    """Raises ValueError where the first bytes of a file are of no text in UTF-8, plain or gzip."""
    for magic, name, remedy in _BINARY:
        if head.startswith(magic):
            raise ValueError(
                f"{path} is {name}, and JSONL is read: {remedy.replace('{path}', str(path))}"
            )
    if not head.startswith(_GZIP) and (at := head.find(b"\0")) >= 0:
        raise ValueError(
            f"{path}: byte {at} is 0, so this is no text in UTF-8: binary, or UTF-16 (then "
            f"iconv -f UTF-16LE -t UTF-8 {path} > {path}.jsonl)"
        )


def _unzipped_rows(path: Path, file: BinaryIO) -> Iterator[tuple[int, dict[str, Any]]]:
    with gzip.GzipFile(fileobj=file) as unzipped:
        try:
            yield from _rows(path, unzipped)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise ValueError(f"{path}: the gzip file is damaged: {error}") from None


def _rows(path: Path, file: BinaryIO | gzip.GzipFile) -> Iterator[tuple[int, dict[str, Any]]]:
    start = 0  # of the line, in bytes of the text
    for number, raw in enumerate(file, start=1):
        line = raw.removeprefix(_BOM) if number == 1 else raw
        try:
            text = line.decode()
        except UnicodeDecodeError as error:
            at = start + len(raw) - len(line) + error.start
            raise ValueError(
                f"{path}:{number}: byte {at} of the text, 0x{line[error.start]:02x}, is not UTF-8: "
                f"if it is Latin-1, iconv -f LATIN1 -t UTF-8 {path} > {path}.jsonl"
            ) from None
        start += len(raw)
        if text.strip():
            yield number, _parsed(text, f"{path}:{number}")


def _parsed(text: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(text, object_pairs_hook=without_repeats)
    except RecursionError:
        raise ValueError(f"{where}: no JSON: brackets are nested too deeply") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError) and text.strip() == "[":
            _refuse_array(where)
        raise ValueError(f"{where}: no JSON: {error}") from None
    if isinstance(row, list) and row and isinstance(row[0], dict):
        _refuse_array(where)
    if not isinstance(row, dict):
        raise ValueError(f"{where}: a row must be an object, not {text.strip()[:40]}")
    return row


def _refuse_array(where: str) -> NoReturn:
    raise ValueError(
        f"{where}: a row must be an object, and here begins a JSON array of rows: one row a line is "
        "read (jq -c '.[]' makes them)"
    )


def without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raises ValueError where a name stands twice in one JSON object, of which one value would be lost."""
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} stands twice in one object")
    return row
