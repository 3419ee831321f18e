"""What an index was built of: `manifest.json` in its folder."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Self

from search_server.corpus import BadCorpus

FORMAT = 1  # of the index: another number asks for a new build
_NAME = "manifest.json"


def corpus_files(paths: Sequence[pathlib.Path]) -> list[list[str | int]]:
    """Name, size and time of each file: equal ones are taken for the same file."""
    states = [(path.name, path.stat()) for path in paths]
    return [[name, state.st_size, state.st_mtime_ns] for name, state in states]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    format: int
    files: list[list[str | int]]
    documents: int = 0  # 0 until the rows are checked
    encoder: str = ""
    query_prefix: str = ""
    passage_prefix: str = ""
    vector_width: int = 0
    is_whole: bool = False

    @classmethod
    def read(cls, folder: pathlib.Path, *, whole: bool = True) -> Self:
        """Raises BadCorpus unless the folder holds an index, built to its end if `whole`."""
        file = folder / _NAME
        try:
            made = cls(**json.loads(file.read_text("utf-8")))
        except FileNotFoundError as error:
            raise BadCorpus(
                f"{folder}: no index: it has no {_NAME}; build one with --corpus FILE --index DIR"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise BadCorpus(
                f"{file}: unreadable: {error!s:.200}; build it with --rebuild"
            ) from error
        if made.format != FORMAT:
            raise BadCorpus(
                f"{folder}: an index of format {made.format}, this is {FORMAT}: --rebuild"
            )
        if whole and not made.is_whole:
            raise BadCorpus(f"{folder}: the build did not end: run it again with the same flags")
        return made

    def write(self, folder: pathlib.Path) -> None:
        part = folder / (_NAME + ".part")
        with open(part, "w", encoding="utf-8") as file:
            json.dump(dataclasses.asdict(self), file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, folder / _NAME)

    def replace(self, **changes: Any) -> Self:
        return dataclasses.replace(self, **changes)

    def check_same(self, wanted: "Manifest", folder: pathlib.Path) -> None:
        """Raises unless the index is of the wanted corpus and encoder."""
        if self.files != wanted.files:
            names = ", ".join(str(file[0]) for file in self.files)
            raise BadCorpus(
                f"{folder}: built of other files, or of earlier ones ({names}): give --rebuild, "
                "another --index, or --index alone to serve it as it is"
            )
        for name in ("encoder", "query_prefix", "passage_prefix"):
            made, asked = getattr(self, name), getattr(wanted, name)
            if made != asked:
                flag = name.replace("_", "-")
                raise BadCorpus(
                    f"{folder}: built with --{flag} {made!r}, not {asked!r}: give --rebuild"
                )
