"""Which files a program may read: Python's own, installed packages, shared libraries, time zones.

Not the prefix as a whole: beside Python lie pip.conf, settings, other programs and their data. What
is named here is what the namespace tier binds into its root and the Landlock tier allows.
"""

import os
import site
import sys
import sysconfig
from collections.abc import Iterator

LIBRARY_DIRS = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo")
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
