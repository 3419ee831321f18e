"""Whether the files of a request can be written under /tmp. Pure: what passes is written without trouble.

Not covered: in which tiers there are files at all.
"""

import unicodedata

from sandbox_server.config import LimitSet

MOST_FILES = 1000
_NAME_BYTES = 255  # of one segment: the kernel's limit
_PATH_BYTES = 1024
_PAGE_BYTES = 4096  # a file takes whole pages of its file system
_SPARE_INODES = 8  # for /tmp itself, and something of the program's
_SHOWN_CHARS = 60


class InvalidRequest(ValueError):
    """The request asks for what this server does not do."""


def check_files(files: dict[str, bytes], limits: LimitSet, inodes: int) -> None:
    """Raises InvalidRequest with the first name that is none, or with what is too much.

    `inodes`: how many files and directories the file system holds.
    """
    if not files:
        return
    if len(files) > MOST_FILES:
        raise InvalidRequest(f"{len(files)} files, at most {MOST_FILES} are taken")
    folders: set[str] = set()
    for name in files:
        check_file_name(name)
        folders.update(_folders(name))
    for name in files:
        if name in folders:
            raise InvalidRequest(f"file name {_shown(name)} is also a directory of another")
    if len(files) + len(folders) > inodes - _SPARE_INODES:
        raise InvalidRequest(
            f"{len(files)} files in {len(folders)} directories, at most {inodes - _SPARE_INODES} of both "
            "have room"
        )
    pages = sum(-(-len(content) // _PAGE_BYTES) for content in files.values())
    if pages * _PAGE_BYTES > limits.scratch_bytes:
        raise InvalidRequest(
            f"files take {pages * _PAGE_BYTES} bytes in whole pages, more than scratch_bytes="
            f"{limits.scratch_bytes}"
        )
    size = sum(map(len, files.values()))
    if 4 * size > limits.memory_bytes:  # they come as text, and are written under this limit
        raise InvalidRequest(
            f"files have {size} bytes, more than a quarter of memory_bytes={limits.memory_bytes}"
        )


def check_file_name(name: str) -> None:
    """Raises InvalidRequest if `name` is no relative path that can be written."""
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"file name {_shown(name)} is not Unicode text") from None
    segments = name.split("/")
    if not name or name.startswith("/") or "\0" in name or {"", ".", ".."} & set(segments):
        raise InvalidRequest(
            f"file name {_shown(name)} must be relative, without NUL, . and .. and empty parts"
        )
    longest = max(len(segment.encode()) for segment in segments)
    if size > _PATH_BYTES or longest > _NAME_BYTES:
        raise InvalidRequest(
            f"file name {_shown(name)} has {size} bytes, {longest} between slashes: at most {_PATH_BYTES} "
            f"and {_NAME_BYTES} are taken"
        )
    if not unicodedata.is_normalized("NFC", name):
        raise InvalidRequest(f"file name {_shown(name)} must be in Unicode's composed form (NFC)")


def _folders(name: str) -> list[str]:
    """The directories on the way: of a/b/c are a and a/b."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _shown(name: str) -> str:
    """In ASCII, cut: a name may have a megabyte and act on a terminal."""
    shown = ascii(name[:_SHOWN_CHARS])
    is_cut = len(name) > _SHOWN_CHARS or len(shown) > _SHOWN_CHARS
    return shown[:_SHOWN_CHARS] + "…" if is_cut else shown
