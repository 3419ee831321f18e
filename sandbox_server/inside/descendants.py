"""Ends what lives below this process, known or not, within a time.

For a process that inherits the orphans below it (a subreaper): kill the children, and what they
leave becomes a child and is killed in turn. Children come from /proc, so this is for the tiers
without a pid namespace. Programs cannot fork on their own, so each round has fewer to kill.
"""

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Collection

_LOOK_AGAIN_S = 0.001


def children() -> set[int]:
    """Children of this process, ended ones included, if nobody has reaped them."""
    found: set[int] = set()
    for task in pathlib.Path("/proc/self/task").iterdir():
        try:
            found.update(map(int, (task / "children").read_text().split()))
        except FileNotFoundError:
            if task.is_dir():  # a kernel without these files (CONFIG_PROC_CHILDREN)
                return _children_by_parent()
    return found


def _children_by_parent() -> set[int]:
    me, found = os.getpid(), set()
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[1]) == me:
                    found.add(int(entry.name))
    return found


def end(spared: Collection[int] = (), *, within_s: float) -> bool:
    """SIGKILL to all children but `spared`, and to all that become children. True if none is left."""
    stop = time.monotonic() + within_s
    looks_empty = False
    while True:
        doomed = children().difference(spared)
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        # A list that is read while processes end may lack one: believed at the second look.
        if not doomed and looks_empty:
            return True
        looks_empty = not doomed
        if time.monotonic() > stop:
            return False
        if doomed:
            time.sleep(_LOOK_AGAIN_S)
