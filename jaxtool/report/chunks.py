"""Answers in chunks: a page of 10,000 answers opens at once and loads what is looked at.

A chunk is JSON, compressed and in base64. A small page holds its chunks; a large one has them in a folder beside it,
one script each, since a page opened as a file may load scripts but may not read other files. Such a script is one call
whose arguments are a name and base64, so nothing that a policy or a tool wrote can be part of the program. A chunk's
name is the digest of what it holds: a page never finds the chunks of another.
"""

import base64
import dataclasses
import gzip
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.report.viewer_rows import ViewerRow

CHUNK_CHARACTERS = 1 << 20  # of JSON in a chunk: it loads in some hundredths of a second
MAX_INSIDE = 3 << 20  # characters of base64 up to which the page holds its chunks itself
_NAME = re.compile(r"[0-9a-f]{16}\.js")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chunked:
    """Answers of a page."""

    index: dict[str, Any]  # for the page: columns by name, questions, names of the chunks
    chunks: dict[str, str]  # base64 by name, in order

    @property
    def fits_inside(self) -> bool:
        return sum(map(len, self.chunks.values())) <= MAX_INSIDE


def chunked(rows: Iterable[ViewerRow]) -> Chunked:
    """Index and chunks; each row is dropped once it is packed, so memory holds compressed text only."""
    texts, figures = _Packer(), _Packer()
    columns: dict[str, list[Any]] = {}
    questions: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for row in rows:
        question = questions.setdefault(row.question, len(questions))
        places = {"body": texts.add(row.body)}
        places["figures"] = [-1, -1] if row.figures is None else figures.add(row.figures)
        for name, value in (row.head | {"question": question} | places).items():
            columns.setdefault(name, []).append(value)
    names = [packer.finish() for packer in (texts, figures)]
    return Chunked(
        index={
            "count": len(columns.get("question", ())),
            "columns": columns,
            "questions": [
                {"id": name, "text": text, "references": references}
                for name, text, references in questions
            ],
            "texts": names[0],
            "figures": names[1],
        },
        chunks=texts.made | figures.made,
    )


class _Packer:
    """Values in the chunk that is open; a full one is compressed."""

    def __init__(self) -> None:
        self.made: dict[str, str] = {}
        self._names: list[str] = []
        self._open: list[str] = []
        self._size = 0

    def add(self, value: Mapping[str, Any]) -> list[int]:
        """Number of the chunk, and place in it."""
        if self._size >= CHUNK_CHARACTERS:
            self._close()
        text = json.dumps(value, allow_nan=False, separators=(",", ":"))
        self._open.append(text)
        self._size += len(text)
        return [len(self._names), len(self._open) - 1]

    def finish(self) -> list[str]:
        """Names of the chunks in order."""
        if self._open:
            self._close()
        return self._names

    def _close(self) -> None:
        content = gzip.compress(f"[{','.join(self._open)}]".encode("ascii"), 6, mtime=0)
        name = f"{hashlib.sha256(content).hexdigest()[:16]}.js"
        self.made[name] = base64.b64encode(content).decode("ascii")
        self._names.append(name)
        self._open, self._size = [], 0


def folder_of(page: pathlib.Path) -> pathlib.Path:
    """Where the chunks of a large page are: `report_data` beside `report.html`."""
    return page.with_name(f"{page.stem}_data")


def write_beside(page: pathlib.Path, chunks: Mapping[str, str]) -> None:
    """Writes the chunks before the page that names them. Those of the page before stay until `remove_others`."""
    folder = folder_of(page)
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in chunks.items():
        if not (folder / name).exists():  # the name says what it holds
            write_text(folder / name, f'jaxtoolChunk("{name}","{content}")\n')


def remove_others(page: pathlib.Path, chunks: Mapping[str, str]) -> None:
    """Removes chunks that the page at this place no longer names; other files of the folder stay."""
    folder = folder_of(page)
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name) and path.name not in chunks:
            path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
