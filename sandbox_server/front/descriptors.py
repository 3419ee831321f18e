"""Open files of the front end: the limit is raised, and shared out so that clients cannot use them up.

Every connection is a descriptor, and so is every pipe of a running program. Without a bound, silent
connections would leave none for programs. With `ulimit -n 160` and two programs at once:

  48   the server's own, and those of two running and four waiting children
  64   in reserve
  24   connections, at most
  24   sessions, about five each, while the reserve is whole
"""

import os
import resource

RESERVE = 64
_OWN = 24  # sockets, fork servers, log, event loop
_PER_PROGRAM = 12  # pipes, socket and pidfd of a running child and of two that wait
_FEWEST_CONNECTIONS = 16
_MOST = 1 << 20  # some containers allow a billion, and tables grow with what is allowed


class TooFewDescriptors(Exception):
    """What was asked for would take descriptors of the reserve."""


def raise_limit() -> int:
    """Raises the soft limit of open files to the hard one; returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST if hard == resource.RLIM_INFINITY else min(hard, _MOST)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return _MOST if soft == resource.RLIM_INFINITY else soft


def check_limit(limit: int, concurrency: int) -> None:
    """Raises ValueError if a server with so many programs at once would run out of open files."""
    needed = _OWN + _PER_PROGRAM * concurrency + RESERVE + _FEWEST_CONNECTIONS
    if limit < needed:
        raise ValueError(
            f"{limit} open files are allowed here, {needed} are needed with --concurrency "
            f"{concurrency}: raise `ulimit -n`, or lower --concurrency"
        )


def max_connections(limit: int, concurrency: int) -> int:
    """How many clients may be connected: half of what the server does not need itself."""
    return (limit - RESERVE - _OWN - _PER_PROGRAM * concurrency) // 2


def check_room() -> None:
    """Raises TooFewDescriptors if what is open leaves no more than the reserve."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    num_open = len(os.listdir("/proc/self/fd"))
    if limit - num_open < RESERVE:
        raise TooFewDescriptors(f"{num_open} of {limit} open files are in use")
