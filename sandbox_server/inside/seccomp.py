"""The system call filter: a table of rules assembled to BPF as a binary search.

A call without a rule fails with EPERM. Calls of another architecture (i386, x32) kill the process.
A filter sees registers only: what a path or a structure says is the business of Landlock, of the
mount namespace, or the call is refused (openat2, clone3).
"""

import ctypes
import dataclasses
import errno
import struct
from collections.abc import Sequence

from sandbox_server.inside import linux
from sandbox_server.inside.syscalls import SYSCALLS, number

ALLOW = 0x7FFF0000
KILL = 0x80000000
NOTIFY = 0x7FC00000
_ERRNO = 0x00050000
_AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32_BIT = 0x40000000
OWN_PID = 0x7FFFDEAD  # placeholder, replaced in each child
_FULL = 0xFFFFFFFF
_LOAD, _JEQ, _JGE, _JUMP, _AND, _RETURN = 0x20, 0x15, 0x35, 0x05, 0x54, 0x06

# clone() as pthread_create calls it (glibc 0x3d0f00; musl adds CLONE_DETACHED) and as fork() does.
_THREAD_MASK = _FULL & ~0x7D0F00 | 0x10900
_THREAD_FLAGS = 0x10900
_FORK_FLAGS = 0x1200011

Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant


def refuse(code: int) -> int:
    """Action that makes the call return -1 with errno `code`; 0 pretends success."""
    return _ERRNO | code


@dataclasses.dataclass(frozen=True, kw_only=True)
class Test:
    """Argument `index`, its low 32 bits masked, equals `value`; `is_pointer` wants the high half 0."""

    index: int
    value: int
    mask: int = _FULL
    is_pointer: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
    """First case whose tests all hold decides; `otherwise` if none does."""

    cases: tuple[tuple[tuple[Test, ...], int], ...] = ()
    otherwise: int = refuse(errno.EPERM)


def _one_of(index: int, values: Sequence[int], otherwise: int = refuse(errno.EPERM)) -> Rule:
    cases = tuple(((Test(index=index, value=v),), ALLOW) for v in values)
    return Rule(cases=cases, otherwise=otherwise)


_READ_ONLY = """read readv pread64 preadv close close_range fstat newfstatat stat lstat statx lseek
access faccessat faccessat2 open openat getdents getdents64 readlink readlinkat statfs fstatfs
fadvise64 getcwd chdir fchdir umask"""
_PLAIN = (
    _READ_ONLY
    + """ write writev pwrite64 pwritev mprotect munmap mremap brk msync
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
pipe pipe2 select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
eventfd eventfd2 timerfd_create timerfd_settime timerfd_gettime dup dup2 dup3
nanosleep clock_nanosleep clock_gettime clock_getres gettimeofday time times
getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp
getrusage getrlimit sched_yield sched_get_priority_max sched_get_priority_min getcpu
futex set_robust_list set_tid_address rseq exit exit_group getrandom uname sysinfo
getitimer setitimer alarm pause restart_syscall wait4 waitid
recvfrom shutdown getsockopt getsockname"""
)
_SCRATCH = """creat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir symlink symlinkat
link linkat chmod fchmod fchmodat truncate ftruncate fallocate utimensat utime utimes futimesat
fsync fdatasync sync_file_range sendfile copy_file_range"""
_NOT_SUPPORTED = """listxattr llistxattr flistxattr getxattr lgetxattr fgetxattr setxattr lsetxattr
fsetxattr"""


def _with_arguments() -> dict[str, Rule]:
    self_only = _one_of(0, (0, OWN_PID))
    locks = (6, 7, 37, 38)  # F_SETLK, F_SETLKW and their OFD twins
    return {
        # Shared anonymous memory escapes RLIMIT_DATA; huge pages are a pool shared with the host.
        "mmap": Rule(
            cases=(
                ((Test(index=3, mask=0x4000F, value=2),), ALLOW),
                ((Test(index=3, mask=0x4002D, value=1),), ALLOW),
            )
        ),
        "madvise": Rule(  # no page merging (a timing channel), no memory poisoning
            cases=tuple(((Test(index=2, value=v),), refuse(errno.EPERM)) for v in (12, 100, 101)),
            otherwise=ALLOW,
        ),
        "clone": Rule(cases=(((Test(index=0, mask=_THREAD_MASK, value=_THREAD_FLAGS),), ALLOW),)),
        "clone3": Rule(otherwise=refuse(errno.ENOSYS)),  # so that glibc falls back to clone
        "openat2": Rule(otherwise=refuse(errno.ENOSYS)),
        "ioctl": _one_of(1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451), refuse(errno.ENOTTY)),
        # Locks on files that others read too would be a channel: pretend they succeed.
        "fcntl": Rule(
            cases=(
                *(((Test(index=1, value=v),), ALLOW) for v in (0, 1, 2, 3, 4, 1030, 1032)),
                *(((Test(index=1, value=v),), refuse(0)) for v in locks),
            )
        ),
        "flock": Rule(otherwise=refuse(0)),
        "kill": _one_of(0, (OWN_PID,)),
        "tgkill": _one_of(0, (OWN_PID,)),
        "prctl": _one_of(0, (3, 15, 16, 23)),  # get dumpable, set and get name, read bounding set
        "prlimit64": Rule(
            cases=tuple(
                ((Test(index=0, value=pid), Test(index=2, value=0, is_pointer=True)), ALLOW)
                for pid in (0, OWN_PID)
            )
        ),
        "getpriority": _one_of(1, (0,)),
        # A datagram socket could name a receiver; a connected stream cannot.
        "socketpair": Rule(
            cases=(((Test(index=0, value=1), Test(index=1, mask=0xF, value=1)), ALLOW),)
        ),
        "sendto": Rule(cases=(((Test(index=4, value=0, is_pointer=True),), ALLOW),)),
        **dict.fromkeys(
            ("getpgid", "getsid", "sched_getaffinity", "sched_getparam", "sched_getscheduler"),
            self_only,
        ),
    }


def make_rules(*, has_scratch: bool, can_truncate: bool, is_session: bool) -> dict[str, Rule]:
    """Rules by system call name; `can_truncate` says that Landlock guards O_TRUNC (ABI 3)."""
    rules = {name: Rule(otherwise=ALLOW) for name in _PLAIN.split()}
    rules |= {name: Rule(otherwise=refuse(errno.ENOTSUP)) for name in _NOT_SUPPORTED.split()}
    rules |= _with_arguments()
    if has_scratch:
        rules |= {name: Rule(otherwise=ALLOW) for name in _SCRATCH.split()}
    elif not can_truncate:
        for name, index in (("open", 1), ("openat", 2)):
            rules[name] = Rule(cases=(((Test(index=index, mask=0x240, value=0),), ALLOW),))
    if is_session:
        fork = ((Test(index=0, value=_FORK_FLAGS),), ALLOW)  # the notifying filter has it too
        rules["clone"] = Rule(cases=(*rules["clone"].cases, fork))
        rules |= {name: Rule(otherwise=ALLOW) for name in ("kill", "tgkill")}
        wake = ((Test(index=0, value=1), Test(index=1, value=18)), ALLOW)  # see session_process.py
        rules["prctl"] = Rule(cases=(*rules["prctl"].cases, wake))
        for name in ("getpgid", "getsid", "sched_getaffinity", "sched_getparam"):
            rules[name] = _one_of(0, (0,))
        rules["prlimit64"] = Rule(cases=rules["prlimit64"].cases[:1])
        rules["recvmsg"] = Rule(
            otherwise=ALLOW
        )  # how a block gets its pipes; sendmsg stays refused
    return rules


def make_notify_rules() -> dict[str, Rule]:
    """The second filter of a session: the supervisor decides forks and signals, ids change there."""
    fork = ((Test(index=0, mask=0x10000, value=0),), NOTIFY)
    rules = {"clone": Rule(cases=(fork,), otherwise=ALLOW)}
    return rules | {name: Rule(otherwise=NOTIFY) for name in ("kill", "tgkill")}


def _rule_code(rule: Rule) -> list[Instruction]:
    code: list[Instruction] = []
    for tests, action in rule.cases:
        body: list[Instruction] = []
        for test in tests:
            base = 16 + 8 * test.index  # low half first on both architectures
            loads: list[list[Instruction]] = [[(_LOAD, 0, 0, base)]]
            if test.mask != _FULL:
                loads[0].append((_AND, 0, 0, test.mask))
            if test.is_pointer:
                loads.append([(_LOAD, 0, 0, base + 4)])
            for load in loads:
                body += [*load, (_JEQ, 0, 255, test.value)]
        body.append((_RETURN, 0, 0, action))
        # A failed test jumps behind the body, that is to the next case.
        code += [
            (op, jt, len(body) - i - 1 if jf == 255 else jf, k)
            for i, (op, jt, jf, k) in enumerate(body)
        ]
    return [*code, (_RETURN, 0, 0, rule.otherwise)]


def _search(ranges: list[tuple[int, list[Instruction]]]) -> list[Instruction]:
    """Binary search; `ranges` are (first number, code), sorted."""
    if len(ranges) == 1:
        return ranges[0][1]
    middle = len(ranges) // 2
    low, high = _search(ranges[:middle]), _search(ranges[middle:])
    first = ranges[middle][0]
    if len(low) <= 255:
        return [(_JGE, len(low), 0, first), *low, *high]
    return [(_JGE, 0, 1, first), (_JUMP, 0, 0, len(low)), *low, *high]


def assemble(
    rules: dict[str, Rule], machine: str, default_action: int = refuse(errno.EPERM)
) -> bytes:
    """BPF program; OWN_PID is still a placeholder in it."""
    default = [(_RETURN, 0, 0, default_action)]
    by_number = {}
    for name, rule in rules.items():
        nr = number(name, machine) if name in SYSCALLS else None
        if nr is not None:
            by_number[nr] = _rule_code(rule)
    ranges: list[tuple[int, list[Instruction]]] = []
    for nr in range(max(by_number) + 2):
        code = by_number.get(nr, default)
        if not ranges or ranges[-1][1] != code:
            ranges.append((nr, code))
    tree = _search(ranges)
    prologue = [(_LOAD, 0, 0, 4), (_JEQ, 1, 0, _AUDIT_ARCH[machine]), (_RETURN, 0, 0, KILL)]
    prologue += [(_LOAD, 0, 0, 0), (_JGE, 0, 1, _X32_BIT), (_RETURN, 0, 0, KILL)]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in prologue + tree)


def with_pid(program: bytes, pid: int) -> bytes:
    """`program` with the placeholder replaced by `pid`."""
    return program.replace(struct.pack("=I", OWN_PID), struct.pack("=I", pid))


def install(program: bytes, *, with_listener: bool = False) -> int:
    """Binds this thread for good (no_new_privs must be set). The listener's descriptor, or 0."""
    buffer = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("HxxxxxxQ", len(program) // 8, ctypes.addressof(buffer))
    flags = 8 if with_listener else 0  # SECCOMP_FILTER_FLAG_NEW_LISTENER
    return linux.syscall("seccomp", 1, flags, header)
