"""Names of places in buckets, told from paths of this machine, and refused where something is written.

A run locks its directory, appends to files and renames directories. Object stores do none of it: a name such as
gs://my-bucket/run would become a directory called "gs:" on the local disk.
"""

import re
from pathlib import Path

# One letter would be a drive of Windows.
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/+(?P<rest>.*)", re.DOTALL)


def bucket_url(path: str | Path) -> str | None:
    """The URL that a path spells, also after pathlib has made one slash of two; None: a path on this machine.

    Example: Path("gs://b/a") is "gs:/b/a" as text, and gives "gs://b/a".
    """
    match = _URL.fullmatch(str(path))
    return match and f"{match['scheme'].lower()}://{match['rest']}"


def check_local(path: str | Path, what: str) -> None:
    """Raises ValueError for a place that is written and is in a bucket, or behind any other URL.

    Args:
      what: of the message, such as "--workdir".
    """
    if (url := bucket_url(path)) is not None:
        raise ValueError(
            f"{what} {url}: only places on this machine are written, because object stores neither append nor "
            "lock: mount the bucket, with gcsfuse for one, and name the mount (docs/pods.md)"
        )
