"""The fork server: a warm, single-threaded process that turns requests into locked children.

Started afresh (`-c`, built environment) by the front end, which talks to it over one
SOCK_SEQPACKET socket: JSON headers with descriptors attached. A first interpreter (first_interpreter.py)
has started this one. It never reads a program's code.
It ends when the socket closes, and everything below ends with it: by the kernel in the namespace
tier, elsewhere by the process above it, which inherits all orphans and kills them. The fork server
itself does that for a session whose supervisor is gone.
"""

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
    runner,
    session_supervisor,
)
from sandbox_server.inside.lockdown import Tier

HEADER_BYTES = 4096
_ORPHANS_AT_ONCE_S = 0.05  # spent on killing them before the next order
_ORPHANS_LATER_MS = 50
_KEEPS_CAPABILITY = (
    "Python lies below directories that are closed to other users, so programs keep "
    "CAP_DAC_READ_SEARCH: they see sizes and times of files everywhere; chmod o+x on those directories, "
    "or Python elsewhere, takes it away"
)


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


def start(*, tier: str, fd: int, scratch_bytes: int, with_scipy: bool, packages: list[str]) -> int:
    """The fork server itself, in the second interpreter; `fd` is the front end's socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the front end's business
    channel = socket.socket(fileno=fd)
    procfs = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    has_own_uids = tier == Tier.LANDLOCK and os.geteuid() == 0
    if tier == Tier.NAMESPACE:
        has_own_uids = namespaces.enter()
        pid = os.fork()
        if pid:
            return linux.wait_for(pid)
        linux.prctl(linux.PR_SET_PDEATHSIG, 9)  # process 1 sees no parent
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
