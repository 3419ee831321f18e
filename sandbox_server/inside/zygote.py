"""The fork server: a warm, single-threaded process that turns requests into locked children.

Started afresh (`-c`, built environment) by the front end, which talks to it over one
SOCK_SEQPACKET socket: JSON headers with descriptors attached. `main` is the first interpreter, which
only starts the second (start_again.py); `start` is that one. It never reads a program's code.
It ends when the socket closes, and everything below ends with it: by the kernel in the namespace
tier, elsewhere by the process above it, which inherits all orphans and kills them (`_guard`). The
fork server itself does that for a session whose supervisor is gone.
"""

import contextlib
import json
import os
import select
import signal
import socket
import traceback

from sandbox_server.inside import (
    child,
    descendants,
    heap,
    linux,
    lockdown,
    namespaces,
    packages,
    preload,
    python_files,
    runner,
    session_supervisor,
    start_again,
)
from sandbox_server.inside.lockdown import Tier

HEADER_BYTES = 4096
_ORPHANS_AT_ONCE_S = 0.05  # spent on killing them before the next order
_ORPHANS_LATER_MS = 50
_GUARD_S = 30.0
_KEEPS_CAPABILITY = (
    "Python lies below directories that are closed to other users, so programs keep "
    "CAP_DAC_READ_SEARCH: they see sizes and times of files everywhere; chmod o+x on those directories, "
    "or Python elsewhere, takes it away"
)


def _wait_for(pid: int) -> int:
    """Stays as the parent outside the pid namespace, holding nothing."""
    os.closerange(3, 256)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


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
            status = _wait_for(pid)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    except _FrontEndDied:
        pass
    with contextlib.suppress(_FrontEndDied):  # it came while the line above was at work
        descendants.end(within_s=_GUARD_S)
        return status
    descendants.end(within_s=_GUARD_S)
    return status


class Zygote:
    """State of the serving loop: the front's socket and the children by process id."""

    def __init__(self, channel: socket.socket, prison: lockdown.Prison, scratch_bytes: int):
        self.channel = channel
        self.prison = prison
        self.scratch_bytes = scratch_bytes
        self.names: dict[int, int] = {}  # process id -> the front's number for it
        self.descriptors: dict[int, int] = {}  # pidfd -> process id
        self.supervisors: set[int] = set()
        self.poller = select.poll()
        self.poller.register(channel, select.POLLIN)
        self.has_orphans = False  # of a session supervisor that was killed
        self.pid_namespace = -1
        if prison.tier is Tier.NAMESPACE:
            self.pid_namespace = os.pidfd_open(os.getpid())

    def serve(self) -> None:
        while True:
            for fd, _ in self.poller.poll(_ORPHANS_LATER_MS if self.has_orphans else None):
                if fd == self.channel.fileno():
                    if not self._take_order():
                        return
                else:
                    self._reap()
            if self.has_orphans:
                self._end_orphans()

    def _take_order(self) -> bool:
        header, fds, _, _ = socket.recv_fds(self.channel, HEADER_BYTES, 8)
        if not header:
            return False
        order = json.loads(header)
        is_supervisor = order["op"] == "session_supervisor"
        pid = self._fork(order, fds, is_supervisor)
        for fd in fds:
            os.close(fd)
        pidfd = os.pidfd_open(pid)
        self.names[pid] = order["id"]
        if is_supervisor:
            self.supervisors.add(pid)
        self.descriptors[pidfd] = pid
        self.poller.register(pidfd, select.POLLIN)
        reply = {"op": "forked", "id": order["id"]}
        socket.send_fds(self.channel, [json.dumps(reply).encode()], [pidfd])
        return True

    def _fork(self, order: dict, fds: list[int], is_supervisor: bool) -> int:
        # unshare and setns with CLONE_NEWPID change where children are born, not this process: the
        # supervisor is process 1 of a new namespace, the next child is one of ours again.
        needs_namespace = is_supervisor and self.pid_namespace >= 0
        if needs_namespace:
            linux.unshare(linux.CLONE_NEWPID)
        pid = os.fork()
        if pid == 0:
            try:
                if is_supervisor:
                    session_supervisor.main(self.prison, order, fds, self.scratch_bytes)
                else:
                    child.main(self.prison, order["uid_index"], fds, self.scratch_bytes)
            except BaseException:
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(child.EXIT_BROKEN)
        if needs_namespace:
            linux.setns(self.pid_namespace, linux.CLONE_NEWPID)
        return pid

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self.names.pop(pid, None)
            if name is None:  # left by a child and adopted: nobody asks for it
                continue
            pidfd = next(fd for fd, owner in self.descriptors.items() if owner == pid)
            self.poller.unregister(pidfd)
            del self.descriptors[pidfd]
            os.close(pidfd)
            if pid in self.supervisors:
                self.supervisors.remove(pid)
                self._end_orphans()
            cpu_ms = round((usage.ru_utime + usage.ru_stime) * 1000)
            note = {"op": "exit", "id": name, "status": status, "cpu_ms": cpu_ms}
            note["peak_kib"] = usage.ru_maxrss
            self.channel.send(json.dumps(note).encode())

    def _end_orphans(self) -> None:
        """Kills what a session's supervisor left: children that nobody ordered."""
        if self.prison.tier is not Tier.NAMESPACE:  # there the kernel has
            self.has_orphans = not descendants.end(self.names, within_s=_ORPHANS_AT_ONCE_S)


def _resident_kib_of_a_child() -> int:
    """Resident memory that a child has before its program begins: what all of them share."""
    pid = os.fork()
    if pid == 0:
        preload.rehearse()
        os._exit(0)
    return os.wait4(pid, 0)[2].ru_maxrss


def _load_packages(
    names: list[str], procfs: int, channel: socket.socket
) -> tuple[dict[str, str], list[str]]:
    """Versions of the packages that the operator adds, and what they cost."""
    before = packages.memory_mib()

    def begin(name: str) -> None:
        channel.send(json.dumps({"op": "importing", "package": name}).encode())

    versions = packages.load(names, procfs, begin)
    if not versions:
        return {}, []
    cost = packages.memory_mib() - before
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return versions, [f"packages added to each fork server: {listed}: {cost} MiB"]


def _serve(
    tier: Tier,
    *,
    has_own_uids: bool,
    scratch_bytes: int,
    with_scipy: bool,
    extra: list[str],
    procfs: int,
    channel: socket.socket,
) -> None:
    prison = lockdown.make_prison(tier, has_own_uids)
    preload.prune_import_path(prison.readable)
    if prison.tier is Tier.LANDLOCK:
        preload.answer_for_refused_calls()
    runner.open_streams()
    try:
        added, remarks = _load_packages(extra, procfs, channel)
    except packages.UnfitPackage as error:
        channel.send(json.dumps({"op": "unfit", "why": str(error)}).encode())
        return
    versions = preload.warm_up(with_scipy) | added
    linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    data_bytes, address_bytes = heap.settle(procfs)
    os.close(procfs)
    prison = lockdown.dataclasses.replace(
        prison, base_data_bytes=data_bytes, base_address_bytes=address_bytes
    )
    ready = {
        "op": "ready",
        "packages": versions,
        "remarks": [*remarks, *([_KEEPS_CAPABILITY] if prison.keeps_read_capability else [])],
        "landlock_abi": prison.landlock_abi,
        "has_own_uids": prison.has_own_uids,
        "keeps_read_capability": prison.keeps_read_capability,
        "base_rss_kib": _resident_kib_of_a_child(),
    }
    zygote = Zygote(channel, prison, scratch_bytes)
    channel.send(json.dumps(ready).encode())
    zygote.serve()


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
    return _wait_for(pid)


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
    if setup["is_probe"]:
        return _probe(Tier(setup["tier"]), setup["scratch_bytes"])
    needs_home = setup["tier"] == Tier.LANDLOCK and os.geteuid() == 0
    home = python_files.home_for_others() if needs_home else None
    wanted = ("tier", "fd", "scratch_bytes", "with_scipy", "packages")
    start_again.start_again(home, **{key: setup[key] for key in wanted})


def start(*, tier: str, fd: int, scratch_bytes: int, with_scipy: bool, packages: list[str]) -> int:
    """The fork server itself, in the second interpreter; `fd` is the front end's socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front end's business
    channel = socket.socket(fileno=fd)
    procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    has_own_uids = False
    is_in_namespace = tier == Tier.NAMESPACE
    if is_in_namespace:
        has_own_uids = namespaces.enter()
    elif tier == Tier.LANDLOCK:
        has_own_uids = os.geteuid() == 0
    above = os.getpid()
    if not is_in_namespace:
        linux.prctl(linux.PR_SET_CHILD_SUBREAPER, 1)
    pid = os.fork()
    if pid:
        return _wait_for(pid) if is_in_namespace else _guard(pid)
    if is_in_namespace:  # process 1 sees no parent
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)
    else:
        linux.die_with_parent(above)
    _serve(
        Tier(tier),
        has_own_uids=has_own_uids,
        scratch_bytes=scratch_bytes,
        with_scipy=with_scipy,
        extra=packages,
        procfs=procfs,
        channel=channel,
    )
    return 0
