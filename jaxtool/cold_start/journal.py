"""The journal of a rewriting run: every request and reply, appended as it happens, so that a kill costs nothing twice.

One JSON object a line. The first holds the settings that make a reply what it is; a resumed run must have the
same. Then, by row:

  sent        a request went out, with what it can cost at most
  unanswered  the last one of the row came to nothing, and whether it may have been billed
  answer      a reply: text, finish reason, tokens as it reports them; the row is done
  refused     the endpoint will not answer this row; it is done

A line is written at once and reaches the disk in batches. A line that a kill tore in two is dropped. A request
that was sent and never closed counts at its worst. One process at a time has the directory.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jaxtool.cold_start.chat_wire import Reply
from jaxtool.cold_start.spending import Tokens
from jaxtool.core.bucket_names import check_local
from jaxtool.core.locks import Held, hold

NAME = "journal.jsonl"
_VERSION = 1
_ROWS_PER_SYNC = 16
_BEGINNING = b'{"kind": "settings"'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recorded:
    """What a journal says so far."""

    answers: dict[str, Reply]
    refused: dict[str, str]  # why
    spent: Tokens
    uncertain: Tokens

    def is_done(self, row: str) -> bool:
        return row in self.answers or row in self.refused


class Journal:
    """Appends; made by `open_journal`."""

    def __init__(self, file: BinaryIO):
        self._file = file
        self._unsynced = 0

    def sent(self, row: str, most: Tokens) -> None:
        self._append({"kind": "sent", "row": row, **_tokens(most)})

    def unanswered(self, row: str, *, is_billed: bool, why: str) -> None:
        self._append({"kind": "unanswered", "row": row, "is_billed": is_billed, "why": why})

    def answer(self, row: str, reply: Reply) -> None:
        used = {"used": None if reply.used is None else _tokens(reply.used)}
        said = {"text": reply.text, "finish_reason": reply.finish_reason}
        self._append({"kind": "answer", "row": row, **said, **used})
        self._after_row()

    def refused(self, row: str, why: str) -> None:
        self._append({"kind": "refused", "row": row, "why": why})
        self._after_row()

    def sync(self) -> None:
        """Everything so far reaches the disk."""
        os.fsync(self._file.fileno())
        self._unsynced = 0

    def _after_row(self) -> None:
        self._unsynced += 1
        if self._unsynced >= _ROWS_PER_SYNC:
            self.sync()

    def _append(self, line: Mapping[str, Any]) -> None:
        data = json.dumps(line).encode() + b"\n"
        # Unbuffered: a killed process has written it. A full disk takes a part, which a resume drops.
        if self._file.write(data) != len(data):
            raise OSError(f"{self._file.name}: no room for another line: free some and start again")


@contextlib.contextmanager
def open_journal(workdir: Path, settings: Mapping[str, Any]) -> Iterator[tuple[Journal, Recorded]]:
    """The journal of a directory, begun or gone on with.

    Raises:
      ValueError: other settings than those it was begun with, or no journal of ours; one line.
      Held: another process has the directory.
    """
    check_local(workdir, "--workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    with hold(workdir / "lock"):
        path = workdir / NAME
        size = _whole_bytes(path)
        recorded = _read(path, settings) if size else _nothing()
        with open(path, "ab", buffering=0) as file:
            file.truncate(size)
            journal = Journal(file)
            if not size:
                journal._append({"kind": "settings", "version": _VERSION, "settings": settings})
            try:
                yield journal, recorded
            finally:
                journal.sync()


@contextlib.contextmanager
def held_by_one(workdir: Path) -> Iterator[None]:
    """Turns `Held` into one line with a remedy."""
    try:
        yield
    except Held as error:
        raise ValueError(
            f"{workdir} is in use by {error}: wait for it, or name another --workdir"
        ) from None


def recorded_in(workdir: Path, settings: Mapping[str, Any]) -> Recorded:
    """What the journal of a directory says; nothing is written. Raises as `open_journal` does."""
    path = workdir / NAME
    return _read(path, settings) if _whole_bytes(path) else _nothing()


def _nothing() -> Recorded:
    return Recorded(answers={}, refused={}, spent=Tokens(), uncertain=Tokens())


def _whole_bytes(path: Path) -> int:
    """Up to the end of the last whole line; 0 where nothing was asked: a start that failed owns no directory.

    Raises:
      ValueError: the file is not one of this module's.
    """
    if not path.is_file():
        return 0
    with path.open("rb") as file:
        lines = list(file)
    first = lines[0][: len(_BEGINNING)] if lines else b""
    if not _BEGINNING.startswith(first):
        raise ValueError(f"{path}: no journal of this command: name another --workdir")
    whole = [len(line) for line in lines if line.endswith(b"\n")]
    return sum(whole) if len(whole) > 1 else 0


def _read(path: Path, settings: Mapping[str, Any]) -> Recorded:
    answers: dict[str, Reply] = {}
    refused: dict[str, str] = {}
    open_requests: dict[str, Tokens] = {}
    spent, uncertain = Tokens(), Tokens()
    for number, line in _lines(path):
        if number == 1:
            _check_settings(path, line, settings)
            continue
        try:
            kind, row = line["kind"], line["row"]
            most = open_requests.pop(row, Tokens())
            if kind == "sent":
                uncertain += most  # of an earlier request, which a kill left open
                open_requests[row] = _tokens_of(line)
            elif kind == "unanswered":
                uncertain += most if line["is_billed"] else Tokens()
            elif kind == "answer":
                used = None if line["used"] is None else _tokens_of(line["used"])
                spent += used or Tokens()
                uncertain += most if used is None else Tokens()
                answers[row] = Reply(
                    text=line["text"], finish_reason=line["finish_reason"], used=used
                )
            else:
                refused[row] = line["why"]
        except (KeyError, TypeError) as error:
            raise ValueError(f"{path}:{number}: no line of a journal ({error!r})") from None
    for most in open_requests.values():
        uncertain += most
    return Recorded(answers=answers, refused=refused, spent=spent, uncertain=uncertain)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
            except ValueError as error:
                raise ValueError(
                    f"{path}:{number}: no JSON ({error}): the file was changed by hand, or the disk is "
                    "damaged; name another --workdir"
                ) from None
            if not isinstance(line, dict):
                raise ValueError(f"{path}:{number}: no line of a journal")
            yield number, line


def _check_settings(path: Path, line: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Raises ValueError with what differs, unless the journal was begun with the same settings."""
    before = line.get("settings")
    if line.get("version") != _VERSION or not isinstance(before, dict):
        raise ValueError(
            f"{path}: a journal of version {line.get('version')}, and {_VERSION} is read: name another "
            "--workdir"
        )
    names = dict.fromkeys([*before, *settings])
    differing = [
        f"{name} was {_short(before.get(name))} and is {_short(settings.get(name))}"
        for name in names
        if before.get(name) != settings.get(name)
    ]
    if differing:
        raise ValueError(
            f"{path.parent} was begun with other settings: {'; '.join(differing)}. Use the same ones, or "
            "another --workdir"
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:40]}... ({len(text)} characters)"


def _tokens(tokens: Tokens) -> dict[str, int]:
    return {"prompt_tokens": tokens.prompt, "written_tokens": tokens.written}


def _tokens_of(line: Mapping[str, Any]) -> Tokens:
    return Tokens(prompt=line["prompt_tokens"], written=line["written_tokens"])
