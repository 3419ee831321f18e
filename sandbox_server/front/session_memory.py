"""How much memory a session holds between its blocks: its own pages and the files in its /tmp.

Read from /proc/PID/statm, which costs microseconds, needs no rights, and counts for each process
the pages that it shares with others: those of the warm interpreter are subtracted, those that
branches share count once for each of them. So a family is never counted smaller than it is, except
for what a program has given back of the warm interpreter.
"""

import os

_PAGE = os.sysconf("SC_PAGE_SIZE")


def anonymous_bytes(pid: int) -> int:
    """Resident memory of a process that is no file's; 0 if it has ended."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            _, resident, shared = map(int, file.read().split()[:3])
    except (OSError, ValueError):
        return 0
    return max(0, resident - shared) * _PAGE


def used_bytes(directory: int) -> int:
    """What is written to the file system of an open directory; -1: none."""
    if directory < 0:
        return 0
    facts = os.fstatvfs(directory)
    return (facts.f_blocks - facts.f_bfree) * facts.f_frsize
