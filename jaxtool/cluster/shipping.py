"""What a run needs of this machine: the checkout as an archive, and no path that only this machine has."""

import ast
import gzip
import hashlib
import io
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path

from jaxtool.config.listing import SetValue
from jaxtool.core.bucket_names import bucket_url

_SKIPPED = {".git", "__pycache__", "runs", ".venv", "venv", "build", "dist"}
_MOST_MIB = 200


def files_of(root: Path) -> list[Path]:
    """Files of a checkout that git does not ignore; without git, all but what is made by running and building."""
    listed = subprocess.run(
        ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
    )
    if listed.returncode == 0 and listed.stdout:
        names = sorted(name.decode() for name in listed.stdout.split(b"\0") if name)
        return [root / name for name in names if (root / name).is_file()]
    found = (path for path in sorted(root.rglob("*")) if path.is_file())
    return [p for p in found if not _SKIPPED & set(p.relative_to(root).parts)]


def archive(root: Path) -> tuple[str, bytes]:
    """A tar.gz of the checkout and its name, which says its content: the same files give the same name.

    Raises:
      ValueError: it is too large to be code.
    """
    files = files_of(root)
    size = sum(file.stat().st_size for file in files) / 2**20
    if size > _MOST_MIB:
        largest = max(files, key=lambda file: file.stat().st_size)
        raise ValueError(
            f"the checkout {root} has {size:.0f} MiB that git does not ignore, more than {_MOST_MIB}: move data and "
            f"weights out of it, the largest is {largest.relative_to(root)}"
        )
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for file in files:
            entry = tar.gettarinfo(str(file), str(file.relative_to(root)))
            entry.mtime, entry.uid, entry.gid, entry.uname, entry.gname = 0, 0, 0, "", ""
            with file.open("rb") as content:
                tar.addfile(entry, content)
    packed = gzip.compress(buffer.getvalue(), mtime=0)
    digest = hashlib.blake2b(packed, digest_size=6).hexdigest()
    return f"code-{digest}.tar.gz", packed


def check_paths(values: Mapping[str, SetValue], root: Path) -> None:
    """Raises ValueError where a setting names a file or directory that the archive does not take along.

    Args:
      values: of the composed run, as gin text.
    """
    shipped = set(files_of(root))
    folders = {folder for file in shipped for folder in file.parents}
    for name, one in values.items():
        try:
            value = ast.literal_eval(one.value)
        except (ValueError, SyntaxError):
            continue  # a reference to something else
        for text in value if isinstance(value, tuple | list) else (value,):
            if isinstance(text, str) and "/" in text:
                check_path(text, f"{name} = {text!r} ({one.origin})", shipped | folders)


def check_path(text: str, what: str, shipped: set[Path]) -> None:
    """Raises ValueError for a path that is on this machine and not among what is shipped."""
    if bucket_url(text) is None and Path(text).exists() and Path(text).absolute() not in shipped:
        raise ValueError(
            f"{what} is a path of this machine: `gcloud storage cp -r {text} gs://BUCKET/...`, and name that"
        )
