"""Files in buckets: gs:// and s3:// names are read through a copy on this machine.

  local_copy("gs://my-bucket/gsm8k.jsonl")       ~/.cache/jaxtool/buckets/gs/my-bucket/gsm8k.jsonl
  local_copy("data/gsm8k.jsonl")                 data/gsm8k.jsonl

TensorStore reads them, as Orbax does, so nothing else is installed. It takes the credentials of gcloud, of the
machine or of the AWS environment; TENSORSTORE_GCS_HTTP_URL and AWS_ENDPOINT_URL name other servers. A file is held
in memory while it is copied, one at a time. XDG_CACHE_HOME moves the copies.

Not covered: writing (`jaxtool.core.bucket_names` says why).
"""

import fnmatch
import os
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from jaxtool.core.bucket_names import bucket_url
from jaxtool.core.files import one_line, write_bytes

READABLE = ("gs", "s3")
_LIST_TIMEOUT_S = 60.0
_READ_TIMEOUT_S = 3600.0  # of one file: 5 GB at 1.4 MB/s
_LOGIN = {
    "gs": "gcloud auth application-default login",
    "s3": "aws configure, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
}


def local_copy(path: str | Path, patterns: Sequence[str] = ("*",)) -> Path:
    """Where a file or directory lies on this machine: the path itself, or the copy of what is in a bucket.

    A copy is asked for again each time, by its generation: what has not changed is not read again.

    Args:
      patterns: of the files' names that are wanted of a directory, such as "*.json".

    Raises:
      ValueError: a URL that is neither gs:// nor s3://.
      FileNotFoundError: there is nothing of that name.
      OSError: the bucket cannot be read; one line with what to do.
    """
    url = bucket_url(path)
    if url is None:
        return Path(path)
    scheme, bucket, key = _parts(url)
    folder = _cache() / scheme / bucket
    below = f"{key}/" if key else ""
    names = _listed(url, _store(scheme, bucket, below))
    if not names:
        if not key or not _copied(url, _store(scheme, bucket, ""), key, folder):
            raise FileNotFoundError(
                f"there is nothing in {url}: see `{_ls(scheme)} {scheme}://{bucket}`"
            )
        return folder / key
    wanted = [n for n in names if any(fnmatch.fnmatch(n.rpartition("/")[2], p) for p in patterns)]
    store = _store(scheme, bucket, "")
    for name in wanted:
        _copied(f"{url}/{name}", store, below + name, folder)
    if "*" in patterns:
        _drop_others(folder / key, names)
    return folder / key


def names_below(url: str) -> list[str]:
    """Names of the objects in a folder, without its own. Raises as `local_copy`; an empty list where none is."""
    scheme, bucket, key = _parts(url)
    return _listed(url, _store(scheme, bucket, f"{key}/" if key else ""))


def check_access(url: str) -> str:
    """Writes, reads and deletes a small object below the URL; a line that says how many objects it lists.

    Raises:
      ValueError, OSError: as `local_copy`.
    """
    scheme, bucket, key = _parts(url)
    store = _store(scheme, bucket, f"{key}/" if key else "")
    count, probe = len(_listed(url, store)), f".jaxtool-probe-{os.getpid()}"
    try:
        store.write(probe, b"probe").result(timeout=_LIST_TIMEOUT_S)
        found = store.read(probe).result(timeout=_LIST_TIMEOUT_S).value
        store.write(probe, None).result(timeout=_LIST_TIMEOUT_S)
    except Exception as error:
        raise _unreadable(url, scheme, error, "written") from None
    if found != b"probe":
        raise OSError(f"{url} gave {found!r} for an object that was written as b'probe'")
    return f"{url}: {count} objects; one was written, read and deleted"


def _parts(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and key, without slashes at the key's end."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    if scheme not in READABLE or not bucket:
        raise ValueError(
            f"{url}: only gs://BUCKET/PATH and s3://BUCKET/PATH are read: copy it to this machine and name the copy"
        )
    return scheme, bucket, key.rstrip("/")


def _ls(scheme: str) -> str:
    return "gcloud storage ls" if scheme == "gs" else "aws s3 ls"


def _cache() -> Path:
    home = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return home / "jaxtool" / "buckets"


def _store(scheme: str, bucket: str, prefix: str) -> Any:
    # Imported where it is used: runs from files need none of it.
    import tensorstore

    spec = {"driver": "gcs" if scheme == "gs" else "s3", "bucket": bucket, "path": prefix}
    if scheme == "s3":
        environment = os.environ
        endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL")
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION")
        spec |= {"endpoint": endpoint} if endpoint else {}
        spec |= {"aws_region": region} if region else {}
    try:
        return tensorstore.KvStore.open(spec).result(timeout=_LIST_TIMEOUT_S)
    except Exception as error:
        raise _unreadable(f"{scheme}://{bucket}", scheme, error) from None


def _listed(url: str, store: Any) -> list[str]:
    """Names below the store's prefix; those of folders, which end in a slash, hold nothing."""
    try:
        keys = store.list().result(timeout=_LIST_TIMEOUT_S)
    except Exception as error:
        raise _unreadable(url, url.partition(":")[0], error) from None
    names = [key.decode("utf-8", "surrogateescape") for key in keys]
    for name in names:
        if ".." in PurePosixPath(name).parts or name.startswith("/"):
            raise ValueError(f"{url}/{name}: an object's name must not lead out of its folder")
    return sorted(name for name in names if name and not name.endswith("/"))


def _copied(url: str, store: Any, key: str, folder: Path) -> bool:
    """Brings the copy of an object up to date; False: there is no such object."""
    target, mark = folder / key, _cache() / "generations" / folder.relative_to(_cache()) / key
    known = mark.read_bytes() if mark.is_file() and target.is_file() else None
    options = {} if known is None else {"if_not_equal": known}
    try:
        found = store.read(key, **options).result(timeout=_READ_TIMEOUT_S)
    except Exception as error:
        raise _unreadable(url, url.partition(":")[0], error) from None
    if found.state == "missing":
        return False
    if found.state == "value":
        print(f"copied {url}, {len(found.value):,} bytes, to {target}", file=sys.stderr, flush=True)
        for path, content in ((target, found.value), (mark, found.stamp.generation)):
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, content)
    return True


def _drop_others(folder: Path, names: Sequence[str]) -> None:
    """Removes copies of what is no longer in the bucket."""
    there = {folder / name for name in names}
    for file in folder.rglob("*"):
        if file.is_file() and file not in there:
            file.unlink(missing_ok=True)


def _unreadable(url: str, scheme: str, error: Exception, done: str = "read") -> OSError:
    reason = one_line(error, 200) if str(error) else f"no answer, {type(error).__name__}"
    return OSError(f"{url} cannot be {done} ({reason}): check the name, and {_LOGIN[scheme]}")
