"""Files that were downloaded: what stands in for one, or is cut short, is named before it is parsed."""

import json
from pathlib import Path
from typing import Any

_LFS_POINTER = b"version https://git-lfs"


def check_is_there(path: Path) -> None:
    """Raises ValueError for an empty file, and for the pointer that git-lfs leaves in place of one."""
    with path.open("rb") as stream:
        head = stream.read(len(_LFS_POINTER))
    if not head:
        raise ValueError(f"{str(path)!r} is empty: copy or download it again")
    if head == _LFS_POINTER:
        raise ValueError(
            f"{str(path)!r} is a git-lfs pointer and not the file itself: "
            "run `git lfs pull` in its repository, or download the file"
        )


def read_json_object(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
      ValueError: the file is a pointer, empty, cut short, no JSON, or holds no object.
    """
    check_is_there(path)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{str(path)!r} is not JSON, or is cut short ({error}): copy or download it again"
        ) from error
    if not isinstance(value, dict):
        raise ValueError(
            f"{str(path)!r} must hold an object in {{}}, not a {type(value).__name__}: "
            "copy or download it again"
        )
    return value
