"""Locks that end with the process that holds them, however it ends, and directories that do so too.

The kernel keeps the locks (flock), so a dead process hinders nobody; on NFS the server keeps them for
all hosts. Not covered: file systems without locks, where `hold` raises OSError.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

_LOCK = "lock"
_PAUSES_S = (0.01, 0.05)  # before a lock counts as held


class Held(Exception):
    """Another process holds the lock; the message says which."""


@contextlib.contextmanager
def hold(path: Path) -> Iterator[None]:
    """Holds the lock file `path`, which stays; it names its last holder.

    Raises:
      Held: another process has it.
      OSError: the file system has no locks, or the file cannot be written.
    """
    number = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            _lock(number)
        except BlockingIOError:
            raise Held(_holder(number)) from None
        record = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.ftruncate(number, 0)
        os.pwrite(number, record.encode(), 0)
        yield
    finally:
        os.close(number)


def holder(path: Path) -> str | None:
    """Who holds the lock file, as "process PID on HOST"; None if nobody does, or there is no lock to ask.

    Asks by a shared lock that is given back at once: a process that wants the lock in that moment tries again.
    """
    try:
        number = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:
        fcntl.flock(number, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _holder(number)
    except OSError:
        return None
    finally:
        os.close(number)
    return None


def _lock(number: int) -> None:
    """Raises BlockingIOError if another process holds it, and not only asks (`holder`)."""
    for pause_s in _PAUSES_S:
        try:
            return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(pause_s)
    return fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def temporary_directory(prefix: str) -> Iterator[Path]:
    """A directory that goes at the end of the block; those that killed processes left go now.

    Args:
      prefix: of its name in the system's temporary directory; nobody else uses it.
    """
    root = Path(tempfile.gettempdir())
    for folder in root.glob(f"{prefix}*"):
        _remove_if_left(folder)
    with tempfile.TemporaryDirectory(prefix=prefix) as made:
        folder = Path(made)
        # Locked before it has its name: nobody takes it for one that was left.
        number = os.open(folder / f"{_LOCK}.new", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            with contextlib.suppress(OSError):
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.rename(folder / f"{_LOCK}.new", folder / _LOCK)
            yield folder
        finally:
            os.close(number)


def _remove_if_left(folder: Path) -> None:
    """Removes a directory of this user whose lock nobody holds any more."""
    with contextlib.suppress(OSError):
        if folder.stat().st_uid != os.getuid():
            return
        number = os.open(folder / _LOCK, os.O_RDWR)
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(number)


def _holder(number: int) -> str:
    try:
        record = json.loads(os.pread(number, 4096, 0))
        return f"process {record['pid']} on {record['host']}"
    except (ValueError, KeyError, TypeError):
        return "another process"
