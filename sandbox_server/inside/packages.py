"""Packages of the operator's choice, imported in the fork server before the first child exists.

A child gets them as it gets numpy: loaded, shared, for nothing. Knows nothing of isolation, except that
what a child cannot read is not on the import path any more. A package that leaves a thread is refused:
a fork copies the memory of all threads and continues one of them, with the locks of the others held.
"""

import importlib
import importlib.metadata
import os
import resource
import time
from collections.abc import Callable, Sequence

# Libraries that start a thread as they are loaded, unless the environment says no. pandas loads pyarrow
# where it is installed, whose jemalloc has one.
_WITHOUT_THREADS = {"JE_ARROW_MALLOC_CONF": "background_thread:false"}
_THREADS_END_S = 1.0  # a thread of an import may be about to end
_SHOWN_CHARS = 300


class UnfitPackage(Exception):
    """A package that children cannot be given. One line."""


def _num_threads(procfs: int) -> int:
    fd = os.open("self/task", os.O_RDONLY | os.O_DIRECTORY, dir_fd=procfs)
    try:
        return len(os.listdir(fd))
    finally:
        os.close(fd)


def _has_extra_threads(procfs: int) -> bool:
    stop = time.monotonic() + _THREADS_END_S
    while _num_threads(procfs) > 1:
        if time.monotonic() > stop:
            return True
        time.sleep(0.02)
    return False


def _version(name: str) -> str:
    """Of the distribution that brings this module."""
    top = name.partition(".")[0]
    distributions = importlib.metadata.packages_distributions().get(top)
    if distributions:
        return importlib.metadata.version(distributions[0])
    return str(vars(importlib.import_module(top)).get("__version__", "unknown"))


def _one_line(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_SHOWN_CHARS]


def load(names: Sequence[str], procfs: int, begin: Callable[[str], None]) -> dict[str, str]:
    """Imports `names` in order; their versions. Raises UnfitPackage.

    Args:
      procfs: descriptor of /proc, which may not be in this process's root.
      begin: told each name before its import, so that one which ends the process is known.
    """
    versions = {}
    os.environ.update(_WITHOUT_THREADS)
    for name in names:
        begin(name)
        try:
            importlib.import_module(name)
            versions[name] = _version(name)
        except BaseException as error:
            raise UnfitPackage(
                f"package {name} cannot be imported: {_one_line(error)}; install it beside this "
                "Python, or leave it out of --packages"
            ) from error
        if _has_extra_threads(procfs):
            raise UnfitPackage(
                f"package {name} starts a thread when it is imported, so that its process cannot be "
                "forked; leave it out of --packages"
            )
    for variable in _WITHOUT_THREADS:  # programs see the environment that is documented
        del os.environ[variable]
    return versions


def memory_mib() -> int:
    """The largest resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
