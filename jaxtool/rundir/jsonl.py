"""Files of one JSON object per line that survive a kill and a resume.

Each row holds an integer "step". A row is written with one call and flushed, so that a killed
process leaves at most one half-written last line; reading skips it and resuming removes it.
"""

import abc
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, Self, TextIO

from jaxtool.core.bucket_names import check_local


class Closes(abc.ABC):
    """For `with`: leaving the block closes."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def sync(file: TextIO) -> None:
    """Returns when all rows are on the disk, or in the bucket that is mounted there; a lost host keeps them."""
    file.flush()
    os.fsync(file.fileno())


def append_row(file: TextIO, row: Mapping[str, Any]) -> None:
    """Writes one line.

    Raises:
      OSError: it could not be written; with the file and what to do, in one line.
      ValueError: nan and infinities, which JSON does not have.
    """
    text = json.dumps(row, allow_nan=False, separators=(",", ":")) + "\n"
    try:
        file.write(text)
        file.flush()
    except OSError as error:
        raise OSError(
            f"{file.name} cannot be written ({error.strerror}): make room, then the same command resumes "
            "from the last checkpoint",
        ) from error


def read_rows(path: str | pathlib.Path) -> Iterator[dict[str, Any]]:
    """Rows in the order of the file, without a half-written last line.

    Raises:
      FileNotFoundError: if there is no file.
      ValueError: on a broken line elsewhere, naming it.
    """
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith("\n"):
                return
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not a JSON row ({error})") from error
            if not isinstance(row, dict) or not isinstance(row.get("step"), int):
                raise ValueError(f"{path}:{number}: a row must be an object with an integer step")
            yield row


def open_for_append(path: str | pathlib.Path, resume_step: int | None) -> TextIO:
    """Opens the file behind its rows of step <= `resume_step`; None empties it.

    What is dropped is dropped in one atomic replacement.
    """
    check_local(path, "the file")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if resume_step is None or not path.exists():
        return open(path, "w", encoding="utf-8")
    temporary = path.with_name(f"{path.name}.resuming")
    with open(temporary, "w", encoding="utf-8") as file:
        for row in read_rows(path):
            if row["step"] <= resume_step:
                append_row(file, row)
    os.replace(temporary, path)
    return open(path, "a", encoding="utf-8")
