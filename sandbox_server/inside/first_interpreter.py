"""The first interpreter of a fork server: tries a tier, or starts the server in a second one.

Outside the namespace tier it stays above the server as its guard: it inherits all orphans and ends
what is left when the server or the front end is gone. It forks before the second interpreter begins
and imports little. So it holds little memory, and the server's own is no copy of another process's,
which would make each later fork dearer.
"""

import contextlib
import json
import os
import signal

from sandbox_server.inside import (
    descendants,
    linux,
    lockdown,
    namespaces,
    python_files,
    start_again,
)
from sandbox_server.inside.lockdown import Tier

_GUARD_S = 30.0


class _FrontEndDied(BaseException):
    """Raised in the guard by a signal."""


def _guard(pid: int) -> int:
    """Stays above the fork server `pid` and ends what is left when it or the front end is gone.

    Until it stands, the front end's death is the end of this process (`main`), and with it of the child.
    """
    front_end = os.getppid()

    def on_death(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once
        raise _FrontEndDied

    status = 1
    try:
        signal.signal(signal.SIGTERM, on_death)
        linux.prctl(linux.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == front_end:
            status = linux.wait_for(pid)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _FrontEndDied:
        pass
    with contextlib.suppress(_FrontEndDied):  # it came while the line above was at work
        descendants.end(within_s=_GUARD_S)
        return status
    descendants.end(within_s=_GUARD_S)
    return status


def _try_once(tier: Tier, has_own_uids: bool, scratch_bytes: int) -> int:
    """Locks one child all the way. 0 if that works; says why not otherwise."""
    pid = os.fork()
    if pid == 0:
        try:
            prison = lockdown.make_prison(tier, has_own_uids)
            prison = lockdown.dataclasses.replace(prison, base_address_bytes=1 << 40)
            lockdown.prepare(prison, 1, scratch_bytes)
            limits = lockdown.Limits(
                cpu_s=60, memory_bytes=1 << 30, scratch_bytes=scratch_bytes, threads=1 << 20
            )
            lockdown.lock(prison, 1, limits)
            if tier is Tier.LANDLOCK and not prison.landlock_abi:
                raise OSError("this kernel has no Landlock")
            lockdown.filter_calls(prison)
            os.getcwd()
        except BaseException as error:
            os.write(2, f"{type(error).__name__}: {error}".encode())
            os._exit(1)
        os._exit(0)
    return linux.wait_for(pid)


def _probe(tier: Tier, scratch_bytes: int) -> int:
    try:
        has_own_uids = namespaces.enter() if tier is Tier.NAMESPACE else False
        return _try_once(tier, has_own_uids, scratch_bytes)
    except OSError as error:
        os.write(2, f"{type(error).__name__}: {error}".encode())
        return 1


def main(arguments: list[str]) -> int:
    """`arguments`: the set-up as JSON (tier, fd, parent, scratch_bytes, is_probe, with_scipy,
    packages).
    """
    setup = json.loads(arguments[0])
    linux.die_with_parent(setup["parent"])
    tier = Tier(setup["tier"])
    if setup["is_probe"]:
        return _probe(tier, setup["scratch_bytes"])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front end's business
    if tier is not Tier.NAMESPACE:
        above = os.getpid()
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
        pid = os.fork()
        if pid:
            return _guard(pid)
        linux.die_with_parent(above)
    needs_home = tier is Tier.LANDLOCK and os.geteuid() == 0
    home = python_files.home_for_others() if needs_home else None
    wanted = ("tier", "fd", "scratch_bytes", "with_scipy", "packages")
    start_again.start_again(home, **{key: setup[key] for key in wanted})
