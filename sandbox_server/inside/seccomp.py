"""The system call filter: a table of rules assembled to BPF as a binary search.

A call without a rule fails with EPERM. Calls of another architecture (i386, x32) kill the process.
A filter sees registers only: what a path or a structure says is the business of Landlock, of the
mount namespace, or the call is refused (openat2, clone3).
"""

import ctypes
import dataclasses
import errno
import itertools
import os
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
access faccessat faccessat2 getdents getdents64 getcwd umask"""
_PLAIN = (
    _READ_ONLY
    + """ write writev pwrite64 pwritev mprotect munmap mremap brk
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack
pipe select pselect6 poll ppoll epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait
eventfd eventfd2 timerfd_settime timerfd_gettime dup dup2 dup3 nanosleep gettimeofday time times
getpid gettid getppid getuid geteuid getgid getegid getresuid getresgid getgroups getpgrp
getrusage getrlimit sched_yield sched_get_priority_max sched_get_priority_min getcpu
set_robust_list set_tid_address rseq exit exit_group getrandom sysinfo
getitimer setitimer alarm pause restart_syscall wait4 waitid
recvfrom shutdown getsockname"""
)
_SCRATCH = """creat unlink unlinkat rename renameat renameat2 mkdir mkdirat rmdir symlink symlinkat
link linkat chmod fchmod fchmodat truncate ftruncate fallocate utimensat utime utimes futimesat
sendfile copy_file_range"""
# What shows where links lead, what a file system holds and what the host is called. In the namespace
# tier there is nothing to learn; without a root of its own a program must not ask.
_OF_ITS_OWN_ROOT = "readlink readlinkat statfs fstatfs chdir fchdir uname"
# Flushes and advice work on the disk and the page cache of all: they pretend to succeed.
_PRETENDED = "fsync fdatasync sync_file_range msync fadvise64 flock"
_NOT_SUPPORTED = """listxattr llistxattr flistxattr getxattr lgetxattr fgetxattr setxattr lsetxattr
fsetxattr"""


# A futex without FUTEX_PRIVATE_FLAG has a key that programs share where the word lies in a file. Who
# would sleep on one is told that the word has changed, and looks again (pthread_join, std::future);
# so nobody ever sleeps there, and a wake-up, the kernel's at a thread's end included, wakes nobody.
_FUTEX_COMMAND = 0xFF  # with the private flag 0x80, without FUTEX_CLOCK_REALTIME 0x100
_FUTEX = Rule(
    cases=(
        # wait, wake, requeue, compare and requeue, wake with operation, wait and wake by bits
        *(
            ((Test(index=1, mask=_FUTEX_COMMAND, value=0x80 | command),), ALLOW)
            for command in (9, 1, 0, 10, 3, 4, 5)
        ),
        *(
            ((Test(index=1, mask=_FUTEX_COMMAND, value=command),), refuse(errno.EAGAIN))
            for command in (0, 9)
        ),
        *(
            ((Test(index=1, mask=_FUTEX_COMMAND, value=command),), refuse(0))
            for command in (1, 10, 3, 4)
        ),
    ),
    otherwise=refuse(errno.ENOSYS),  # priority inheritance looks up the word as a process id
)
# Negative ids are clocks of processes, threads and descriptors, others' included.
_CLOCKS = (1, 0, 2, 3, 4, 5, 6, 7, 11)
_DIRECT_ASYNC_NOATIME = 0x56000  # O_DIRECT has one bit on x86-64 and another on aarch64
_PIPE_FLAGS = 0x80800  # O_CLOEXEC, O_NONBLOCK; no packets, no notification queue


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
        # No merging (a timing channel), poisoning, or huge pages of a library's file. Read-ahead and
        # reclaim (will need, cold, page out) reach pages of files: pretend they succeed.
        "madvise": Rule(
            cases=(
                *(((Test(index=2, value=v),), ALLOW) for v in (4, 8, 14, 0, 1, 2)),
                *(((Test(index=2, value=v),), ALLOW) for v in (10, 11, 15, 16, 17, 18, 19)),
                *(((Test(index=2, value=v),), refuse(0)) for v in (3, 20, 21)),
            )
        ),
        "futex": _FUTEX,
        **dict.fromkeys(
            ("clock_gettime", "clock_getres", "clock_nanosleep", "timerfd_create"),
            _one_of(0, _CLOCKS, refuse(errno.EINVAL)),
        ),
        # Reading past the page cache is load on the disk that costs the program nothing.
        "open": _without_bits(1, os.O_DIRECT, refuse(errno.EINVAL)),
        "openat": _without_bits(2, os.O_DIRECT, refuse(errno.EINVAL)),
        "pipe2": _without_bits(1, _FULL & ~_PIPE_FLAGS, refuse(errno.EINVAL)),
        # The type, the error, the protocol and the domain of a socket; never who is behind it.
        "getsockopt": Rule(
            cases=tuple(
                ((Test(index=1, value=1), Test(index=2, value=option)), ALLOW)
                for option in (3, 4, 38, 39)
            )
        ),
        "clone": Rule(cases=(((Test(index=0, mask=_THREAD_MASK, value=_THREAD_FLAGS),), ALLOW),)),
        "clone3": Rule(otherwise=refuse(errno.ENOSYS)),  # so that glibc falls back to clone
        "openat2": Rule(otherwise=refuse(errno.ENOSYS)),
        "ioctl": _one_of(1, (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451), refuse(errno.ENOTTY)),
        # Locks on files that others read too would be a channel: pretend they succeed.
        "fcntl": Rule(
            cases=(
                *(((Test(index=1, value=v),), ALLOW) for v in (0, 1, 2, 3, 1030, 1032)),
                (
                    (Test(index=1, value=4), Test(index=2, mask=_DIRECT_ASYNC_NOATIME, value=0)),
                    ALLOW,
                ),
                *(((Test(index=1, value=v),), refuse(0)) for v in locks),
            )
        ),
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


def _without_bits(index: int, bits: int, otherwise: int) -> Rule:
    """Allowed if argument `index` has none of `bits`."""
    return Rule(cases=(((Test(index=index, mask=bits, value=0),), ALLOW),), otherwise=otherwise)


def make_rules(*, has_scratch: bool, can_truncate: bool, is_session: bool) -> dict[str, Rule]:
    """Rules by system call name; `can_truncate` says that Landlock guards O_TRUNC (ABI 3)."""
    rules = {name: Rule(otherwise=ALLOW) for name in _PLAIN.split()}
    rules |= {name: Rule(otherwise=refuse(errno.ENOTSUP)) for name in _NOT_SUPPORTED.split()}
    rules |= {name: Rule(otherwise=refuse(0)) for name in _PRETENDED.split()}
    rules |= _with_arguments()
    if has_scratch:
        names = f"{_SCRATCH} {_OF_ITS_OWN_ROOT}"
        rules |= {name: Rule(otherwise=ALLOW) for name in names.split()}
    elif not can_truncate:
        for name, index in (("open", 1), ("openat", 2)):
            rules[name] = _without_bits(index, 0x240 | os.O_DIRECT, refuse(errno.EPERM))
    if is_session:
        fork = ((Test(index=0, value=_FORK_FLAGS),), ALLOW)  # the notifying filter has it too
        rules["clone"] = Rule(cases=(*rules["clone"].cases, fork))
        rules |= {name: Rule(otherwise=ALLOW) for name in ("kill", "tgkill")}
        wake = ((Test(index=0, value=1), Test(index=1, value=18)), ALLOW)  # see session_process.py
        rules["prctl"] = Rule(cases=(*rules["prctl"].cases, wake))
        for name in ("getpgid", "getsid", "sched_getparam"):
            rules[name] = _one_of(0, (0,))
        # By its own number too, as pthread_getaffinity_np asks: forked processes differ in that.
        rules["sched_getaffinity"] = Rule(otherwise=ALLOW)
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


def _load(test: Test) -> list[Instruction]:
    load = [(_LOAD, 0, 0, 16 + 8 * test.index)]  # low half first on both architectures
    return load if test.mask == _FULL else [*load, (_AND, 0, 0, test.mask)]


def _tests_code(tests: tuple[Test, ...], action: int) -> list[Instruction]:
    """Returns `action` where all tests hold; a failed test jumps behind, that is to the next case."""
    body: list[Instruction] = []
    for test in tests:
        body += [*_load(test), (_JEQ, 0, 255, test.value)]
        if test.is_pointer:
            body += [(_LOAD, 0, 0, 16 + 8 * test.index + 4), (_JEQ, 0, 255, 0)]
    body.append((_RETURN, 0, 0, action))
    return [
        (op, jt, len(body) - i - 1 if jf == 255 else jf, k)
        for i, (op, jt, jf, k) in enumerate(body)
    ]


def _values_code(first: Test, values: Sequence[int], action: int) -> list[Instruction]:
    """Returns `action` where what `first` looks at is one of `values`: one load for all of them."""
    last = len(values) - 1
    compares = [(_JEQ, last - i, int(i == last), value) for i, value in enumerate(values)]
    return [*_load(first), *compares, (_RETURN, 0, 0, action)]


def _alike(case: tuple[tuple[Test, ...], int]) -> object:
    """Cases that may share a load are equal here: one test of the same bits, the same action."""
    tests, action = case
    is_plain = len(tests) == 1 and not tests[0].is_pointer
    return (tests[0].index, tests[0].mask, action) if is_plain else tests


def _rule_code(rule: Rule) -> list[Instruction]:
    """The cases in order, then `otherwise`.

    Example: argument 0 is 0 or 1: allowed, else EINVAL:
      load 16; equal 0 -> +1; equal 1 -> +0, else +1; return ALLOW; return EINVAL
    """
    code: list[Instruction] = []
    for _, group in itertools.groupby(rule.cases, key=_alike):
        cases = list(group)
        tests, action = cases[0]
        if len(cases) == 1:
            code += _tests_code(tests, action)
        else:
            code += _values_code(tests[0], [case[0][0].value for case in cases], action)
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
