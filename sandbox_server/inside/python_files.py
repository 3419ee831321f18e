"""Which files a program may read: Python's own, installed packages, shared libraries, time zones.

Not the prefix as a whole: beside Python lie pip.conf, settings, other programs and their data. What
is named here is what the namespace tier binds into its root and the Landlock tier allows.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator, Sequence

LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
AT_WORKING_DIRECTORY = "/proc/self/cwd"
_OWN = ("stdlib", "platstdlib", "purelib", "platlib", "include", "platinclude")
_NEVER = ("/", "/usr", "/usr/local", "/usr/share", "/root", "/home", "/tmp", "/etc", "/opt", "/var")


def _is_shared_library(name: str) -> bool:
    return (name.endswith(".so") or ".so." in name) and not name.startswith("libpython")


def _shared_libraries(prefix: str) -> Iterator[str]:
    """`lib` of a prefix that keeps shared libraries of packages there, as conda does."""
    directory = os.path.realpath(os.path.join(prefix, "lib"))
    if os.path.isdir(directory) and any(map(_is_shared_library, os.listdir(directory))):
        yield directory


def _candidates() -> Iterator[str]:
    paths = sysconfig.get_paths()
    yield from (paths[name] for name in _OWN)
    yield from site.getsitepackages()
    for prefix in (sys.prefix, sys.base_prefix):
        yield from _shared_libraries(prefix)
    yield from LIBRARY_DIRS
    interpreter = os.path.realpath(sys.executable)
    if not interpreter.startswith("/tmp/"):  # hidden by the scratch; nobody may run it anyway
        yield interpreter


def readable_paths() -> list[str]:
    """Directories, and the interpreter's file; no path is below another."""
    kept: list[str] = []
    for path in sorted({os.path.realpath(path) for path in _candidates()}):
        is_covered = any(path.startswith(k + "/") for k in kept)
        if os.path.exists(path) and not is_covered and path not in _NEVER:
            kept.append(path)
    return kept


def closed_to_others(paths: Sequence[str], start: str = "/") -> list[str]:
    """Those of `paths` that another user cannot read; the way to what is below `start` begins there."""
    return [path for path in paths if not _others_can_read(path, start)]


def _others_can_read(path: str, start: str) -> bool:
    needed = 0o005 if os.path.isdir(path) else 0o004
    while os.stat(path).st_mode & needed == needed:
        if path in ("/", start):
            return True
        path, needed = os.path.dirname(path), 0o001
    return False


def home_for_others() -> str | None:
    """Python's home, if others can read it from a working directory there and in no other way.

    A directory above it is closed, such as a home of root's. A process that stands inside already
    reads it as AT_WORKING_DIRECTORY, without a right to pass what is above.
    """
    home, paths = os.path.realpath(sys.base_prefix), readable_paths()
    if not closed_to_others(paths) or closed_to_others(paths, home):
        return None
    return home if os.path.isdir(AT_WORKING_DIRECTORY) else None
