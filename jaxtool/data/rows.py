"""Rows of a data set, one after the other: local parquet, JSONL, JSON, CSV and TSV files, or a set on the hub.

What a file is, its first bytes say; CSV and TSV their names. Text may be gzipped. A row knows its file and
number, which every message about it begins with. Rows are read as they are asked for, and of a table only
the columns that are asked for, so that no file is ever in memory as a whole.
Not covered: what the values mean (`layouts`).
"""

import csv
import dataclasses
import gzip
import zlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from jaxtool.core import json_lines
from jaxtool.core.bucket_files import local_copy
from jaxtool.core.bucket_names import bucket_url
from jaxtool.core.files import one_line
from jaxtool.data.hub import HubName, hub_batches
from jaxtool.data.json_array import array_objects

_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"
_SEPARATORS = {".csv": ",", ".tsv": "\t"}
_BATCH_ROWS = 1024
_LONGEST_FIELD = 1 << 30  # characters of one field of a CSV file; its reader's own limit is 131,072
_SUFFIXES = (".parquet", ".jsonl", ".json", ".csv", ".tsv", ".gz", ".txt", ".ndjson")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One row and where it stands."""

    where: str  # "gsm8k.jsonl:17", "dapo.parquet: row 17", "openai/gsm8k:main@train: row 17"
    number: int  # of the row or of its line, from 1
    values: Mapping[str, Any]
    columns: Collection[str]  # all names that the row has; `values` may hold fewer


def source_of(text: str | Path) -> tuple[Path, ...] | HubName:
    """Files, or the name of a data set on the hub: `org/name[:config][@split]`. A bucket's are copied here first.

    `train-*.parquet` names all files that fit, in the order of their names. A file that is there comes first;
    a name that could be either and is no file is taken for the hub's.

    Raises:
      FileNotFoundError: there is no such file, and it could not be a hub name.
      ValueError: it is a directory, or a URL that is not read.
      OSError: the bucket cannot be read.
    """
    path = _on_this_machine(text)
    if path.is_dir():
        raise ValueError(
            f"{path} is a directory: name a file in it, or several as {path}/*.parquet"
        )
    if path.is_file():
        return (path,)
    if "*" in path.name:
        if files := sorted(path.parent.glob(path.name)):
            return tuple(files)
        raise FileNotFoundError(f"no problem file fits {path}")
    found = HubName.parse(str(text))
    if found is None or path.name.endswith(_SUFFIXES):
        raise FileNotFoundError(f"there is no problem file {path}")
    return found


def _on_this_machine(text: str | Path) -> Path:
    """The path itself, or that of the copy of what is in a bucket, wildcards of the name included."""
    url = bucket_url(text)
    folder, _, name = (url or "").rpartition("/")
    if "*" in name:
        return local_copy(folder, (name,)) / name
    return local_copy(text)


def stem_of(text: str | Path) -> str:
    """A short name of a file or a hub set: `gsm8k` of `data/gsm8k.jsonl` and of `openai/gsm8k:main@train`."""
    path = Path(text)
    found = None if path.is_file() or path.name.endswith(_SUFFIXES) else HubName.parse(str(text))
    if found is not None:
        return found.repository.split("/")[1]
    return path.stem.replace("*", "").strip("-_.") or path.parent.name


def read_rows(source: str | Path, columns: Collection[str] | None = None) -> Iterator[Row]:
    """The rows of a file or of a set on the hub, in order. Rows count from 1; a line is named by its own number.

    Args:
      columns: names that are needed; a table gives no others. None: all.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is none of these, or a row cannot be read; one line with file and row.
      OSError: a set on the hub is not on this machine and cannot be had; one line with what to do.
    """
    found = source_of(source)
    if isinstance(found, HubName):
        for names, number, batch in hub_batches(found, columns):
            for index, values in enumerate(batch):
                where = f"{found}: row {number + index}"
                yield Row(where=where, number=number + index, values=values, columns=names)
        return
    for path in found:
        yield from _read_file(path, columns)


def _read_file(path: Path, columns: Collection[str] | None) -> Iterator[Row]:
    with path.open("rb") as file:
        head = file.read(64)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    last = suffixes[-1] if suffixes else ""
    if head.startswith(_PARQUET):
        yield from _parquet_rows(path, columns)
    elif last in _SEPARATORS:
        with _opened(path, head) as text:
            yield from _csv_rows(path, text, _SEPARATORS[last])
    elif _begins_an_array(path, head):
        with _opened(path, head) as text:
            yield from _array_rows(path, text)
    else:
        for number, values in json_lines.read_rows(path):
            yield Row(where=f"{path}:{number}", number=number, values=values, columns=values)


def _opened(path: Path, head: bytes) -> TextIO:
    """The text of a file that may be gzipped, without a byte order mark."""
    json_lines.check_is_text(path, head)
    # Universal newlines are off: a line of CSV may hold "\r\n" inside quotes.
    if head.startswith(_GZIP):
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open("rt", encoding="utf-8-sig", newline="")


def _begins_an_array(path: Path, head: bytes) -> bool:
    if head.startswith(_GZIP):
        try:
            with gzip.open(path) as file:
                head = file.read(64)
        except (OSError, EOFError, zlib.error):
            return False  # named by the reader of lines
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[")


def _parquet_rows(path: Path, columns: Collection[str] | None) -> Iterator[Row]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError:
        raise ValueError(
            f"{path} is a parquet file, and pyarrow is not installed: pip install pyarrow"
        ) from None
    number = 1
    try:
        with pq.ParquetFile(path) as file:
            names = tuple(file.schema_arrow.names)
            wanted = None if columns is None else [name for name in names if name in columns]
            if wanted == []:  # nothing that is needed is there: the first row says so
                wanted = list(names[:1])
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
                for values in batch.to_pylist():
                    where = f"{path}: row {number}"
                    yield Row(where=where, number=number, values=values, columns=names)
                    number += 1
    except (pa.ArrowException, OSError) as error:
        raise ValueError(
            f"{path}: the parquet file is damaged or cut short, from row {number} on: "
            f"{one_line(error, 160)}; copy or download it again"
        ) from None


def _csv_rows(path: Path, text: TextIO, separator: str) -> Iterator[Row]:
    csv.field_size_limit(_LONGEST_FIELD)
    lines = csv.reader(text, delimiter=separator, strict=True)
    names: list[str] | None = None
    try:
        for fields in lines:
            where = f"{path}:{lines.line_num}"
            if not fields:
                continue
            if names is None:
                names = fields
                if twice := [name for name in names if names.count(name) > 1]:
                    raise ValueError(f"{where}: column {twice[0]!r} stands twice in the header")
                continue
            if len(fields) != len(names):
                raise ValueError(
                    f"{where}: {len(fields)} fields, and the header has {len(names)} columns: quote "
                    f"fields that hold {separator!r} or line breaks"
                )
            values = dict(zip(names, fields, strict=True))
            yield Row(where=where, number=lines.line_num, values=values, columns=names)
    except csv.Error as error:
        raise ValueError(f"{path}:{lines.line_num}: no CSV: {error}") from None
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(path, error)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is damaged: {error}") from None


def _array_rows(path: Path, text: TextIO) -> Iterator[Row]:
    try:
        for number, values in array_objects(text, str(path)):
            where = f"{path}: row {number}"
            yield Row(where=where, number=number, values=values, columns=values)
    except UnicodeDecodeError as error:
        raise ValueError(_not_utf8(path, error)) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path}: the gzip file is damaged: {error}") from None


def _not_utf8(path: Path, error: UnicodeDecodeError) -> str:
    return (
        f"{path}: the text is not UTF-8 (0x{error.object[error.start]:02x}): if it is Latin-1, "
        f"iconv -f LATIN1 -t UTF-8 {path} > utf8_{path.name}"
    )
