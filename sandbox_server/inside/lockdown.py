"""Turns a forked child into a prison, step by step; the order matters and is all here.

Before the job: session, scratch, death with the parent. After it: ids, limits, capabilities,
Landlock, seccomp. What runs between the two steps is our own code only.
"""

import dataclasses
import enum
import errno
import fcntl
import os
import resource

from sandbox_server.inside import landlock, linux, namespaces, python_files, seccomp

MAX_OPEN_FILES = 128
STACK_BYTES = 32 << 20
ADDRESS_SLACK_BYTES = 64 << 20


class Tier(enum.StrEnum):
    """How an execution is walled in; the order of strength is none, landlock, namespace."""

    NONE = "none"
    LANDLOCK = "landlock"
    NAMESPACE = "namespace"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that the kernel enforces inside the child; the front end holds the clocks."""

    cpu_s: int  # backstop only
    memory_bytes: int
    scratch_bytes: int
    threads: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prison:
    """All that a fork server knows about how to lock its children. Immutable after start."""

    tier: Tier
    has_own_uids: bool  # each execution has a user id of its own: see `uid`
    first_uid: int  # that of index 0 in the Landlock tier
    keeps_read_capability: bool = False  # Python's files are closed to other users
    landlock_abi: int
    ruleset: int  # descriptor of the Landlock rules, -1 without Landlock; made once, never changed
    readable: tuple[str, ...]
    program: bytes  # system call filter of one execution
    session_program: bytes
    notify_program: bytes  # besides the session's: forks and signals go to the supervisor
    base_data_bytes: int = 0  # the warm interpreter, on top of which memory is counted
    base_address_bytes: int = 0

    def uid(self, uid_index: int) -> int:
        if self.tier is Tier.NAMESPACE:
            return 1000 + uid_index if self.has_own_uids else 1000
        return self.first_uid + uid_index if self.has_own_uids else os.getuid()


def _make_ruleset(tier: Tier, version: int, readable: tuple[str, ...]) -> int:
    if not version or tier is Tier.NONE:
        return -1
    if tier is Tier.NAMESPACE:
        refer = [("/", landlock.REFER)]
        fd = landlock.make_ruleset(version, refer, landlock.NEVER | landlock.REFER)
    else:
        rules = [(path, landlock.READ) for path in readable]
        rules += [("/dev/null", landlock.READ_FILE | landlock.WRITE_FILE)]
        rules += [("/dev/urandom", landlock.READ_FILE)]
        fd = landlock.make_ruleset(version, rules, landlock.handled_access(version))
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100)  # no child gives that number to a pipe
    os.close(fd)
    return moved


def make_prison(tier: Tier, has_own_uids: bool) -> Prison:
    """Prison for this fork server; raises if executions could not read the Python prefix."""
    version = landlock.abi()
    readable = tuple(python_files.readable_paths())
    keeps = False
    if tier is Tier.LANDLOCK and os.geteuid() == 0:
        capabilities = linux.effective_capabilities()
        needed = (1 << linux.CAP_SETUID) | (1 << linux.CAP_SETGID)
        if capabilities & needed != needed:
            raise PermissionError("root without CAP_SETUID and CAP_SETGID: start as a plain user")
        has_own_uids = True
        home = python_files.home_for_others()  # the working directory, then: see start_again.py
        closed = python_files.closed_to_others(readable, home or "/")
        keeps = bool(closed)
        if closed and not capabilities & (1 << linux.CAP_DAC_READ_SEARCH):
            raise PermissionError(f"other users cannot read {closed[0]}: install Python elsewhere")
    rules = [
        seccomp.make_rules(
            has_scratch=tier is Tier.NAMESPACE, can_truncate=version >= 3, is_session=is_session
        )
        for is_session in (False, True)
    ]
    return Prison(
        tier=tier,
        has_own_uids=has_own_uids,
        first_uid=namespaces.first_uid_of_this_server(),
        keeps_read_capability=keeps,
        landlock_abi=version,
        ruleset=_make_ruleset(tier, version, readable),
        readable=readable,
        program=seccomp.assemble(rules[0], linux.MACHINE),
        session_program=seccomp.assemble(rules[1], linux.MACHINE),
        notify_program=seccomp.assemble(seccomp.make_notify_rules(), linux.MACHINE, seccomp.ALLOW),
    )


def prepare(prison: Prison, uid_index: int, scratch_bytes: int) -> None:
    """First step, before a job is known; this process may wait after it."""
    os.setsid()
    if prison.tier is Tier.NAMESPACE:
        namespaces.mount_scratch(scratch_bytes, prison.uid(uid_index), prison.readable)


def _apply_limits(prison: Prison, limits: Limits) -> None:
    data = prison.base_data_bytes + limits.memory_bytes
    address = prison.base_address_bytes + limits.memory_bytes + ADDRESS_SLACK_BYTES
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_DATA, data),
        (resource.RLIMIT_AS, address),
        (resource.RLIMIT_STACK, STACK_BYTES),
        (resource.RLIMIT_FSIZE, limits.scratch_bytes),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
        (resource.RLIMIT_SIGPENDING, 64),
    ):
        linux.set_limit(kind, value)


def _change_identity(prison: Prison, uid_index: int) -> None:
    if prison.has_own_uids:
        uid = prison.uid(uid_index)
        if prison.keeps_read_capability:
            linux.prctl(linux.PR_SET_KEEPCAPS, 1)
        os.setgroups([])
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
    elif prison.tier is Tier.NAMESPACE:
        # A user namespace of its own makes RLIMIT_NPROC count this execution alone.
        try:
            linux.unshare(linux.CLONE_NEWUSER)
        except OSError as error:  # refused after chroot, and at the nesting limit
            if error.errno not in (errno.EPERM, errno.ENOSPC, errno.EUSERS):
                raise
    keep = 1 << linux.CAP_DAC_READ_SEARCH if prison.keeps_read_capability else 0
    linux.set_capabilities(keep)


def lock(prison: Prison, uid_index: int, limits: Limits, task_allowance: int = 0) -> None:
    """Second step: everything except the system call filter. `task_allowance` adds to threads."""
    _apply_limits(prison, limits)
    if prison.tier is not Tier.NONE:
        _change_identity(prison, uid_index)
    # A user namespace takes the limit at its making as one on its maker's other tasks: so after it.
    linux.set_limit(resource.RLIMIT_NPROC, limits.threads + task_allowance)
    if prison.tier is Tier.NONE:
        return
    linux.prctl(linux.PR_SET_DUMPABLE, 0)
    linux.prctl(linux.PR_SET_PDEATHSIG, 9)  # a change of ids has cleared an earlier one
    linux.prctl(linux.PR_SET_NO_NEW_PRIVS, 1)
    if prison.ruleset >= 0:
        landlock.restrict(prison.ruleset)
        os.close(prison.ruleset)
    if prison.tier is Tier.NAMESPACE:
        os.chdir("/tmp")


def filter_calls(prison: Prison) -> None:
    """Last step: the system call filter of a single execution."""
    if prison.tier is not Tier.NONE:
        seccomp.install(seccomp.with_pid(prison.program, os.getpid()))
