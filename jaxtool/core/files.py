"""Files that are whole or not there: written beside their place, then moved into it.

Not covered: files that grow row by row (`jaxtool.rundir.jsonl`).
"""

import contextlib
import os
import shutil
from pathlib import Path

from jaxtool.core.bucket_names import check_local

_UNFINISHED = ".unfinished"


def write_text(path: str | Path, text: str) -> Path:
    """As `write_bytes`, in UTF-8."""
    return write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Puts `content` at `path` in one step: a reader, a kill or a full disk sees the old file or the new one."""
    check_local(path, "a file at")
    path = Path(path)
    temporary = path.with_name(f"{path.name}{_UNFINISHED}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_directory(path.parent)
    return path


def unfinished(directory: Path) -> Path:
    """Where a directory is made before `finish_directory` puts it into its place."""
    return directory.with_name(f"{directory.name}{_UNFINISHED}")


def begin_directory(directory: Path) -> Path:
    """An empty `unfinished` directory, without what an earlier attempt left."""
    check_local(directory, "a directory at")
    temporary = unfinished(directory)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    return temporary


def finish_directory(directory: Path) -> None:
    """Moves the unfinished directory into its place; one that is there goes first."""
    temporary = unfinished(directory)
    if directory.exists():
        before = directory.with_name(f"{directory.name}.before")
        shutil.rmtree(before, ignore_errors=True)
        os.rename(directory, before)
        os.rename(temporary, directory)
        shutil.rmtree(before, ignore_errors=True)
    else:
        os.rename(temporary, directory)
    _sync_directory(directory.parent)


def one_line(error: BaseException, longest: int = 300) -> str:
    """An error's text without line breaks, cut where it gets long."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= longest else f"{text[:longest]}..."


def _sync_directory(directory: Path) -> None:
    """Some file systems cannot sync a directory; the move has happened all the same."""
    with contextlib.suppress(OSError):
        number = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
