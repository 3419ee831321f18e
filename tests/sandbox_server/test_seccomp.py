"""The filter's program, run by an interpreter here, gives the table's verdict on both machines."""

import errno
import pathlib
import re
import struct

import pytest

from sandbox_server.inside import seccomp
from sandbox_server.inside.seccomp import ALLOW, KILL, NOTIFY, refuse
from sandbox_server.inside.syscalls import ARCHITECTURES, SYSCALLS, number

_EPERM = refuse(errno.EPERM)
_HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


def interpret(program: bytes, nr: int, arch: int, arguments=(0,) * 6) -> int:
    """Classic BPF over struct seccomp_data."""
    data = struct.pack("=IIQ6Q", nr, arch, 0, *(a & 0xFFFFFFFFFFFFFFFF for a in arguments))
    accumulator, pc = 0, 0
    while True:
        code, jump_true, jump_false, k = struct.unpack_from("=HBBI", program, 8 * pc)
        pc += 1
        if code == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif code == 0x54:
            accumulator &= k
        elif code == 0x05:
            pc += k
        elif code == 0x15:
            pc += jump_true if accumulator == k else jump_false
        elif code == 0x35:
            pc += jump_true if accumulator >= k else jump_false
        elif code == 0x06:
            return k
        else:
            raise AssertionError(f"unknown instruction {code:#x}")


@pytest.fixture(params=sorted(ARCHITECTURES))
def machine(request):
    return request.param


def _verdict(machine: str, name: str, *arguments: int, **options) -> int:
    settings = {"has_scratch": True, "can_truncate": True, "is_session": False} | options
    program = seccomp.assemble(seccomp.make_rules(**settings), machine)
    nr = number(name, machine)
    assert nr is not None
    padded = (*arguments, *(0,) * (6 - len(arguments)))
    program = seccomp.with_pid(program, 77)
    return interpret(program, nr, seccomp._AUDIT_ARCH[machine], padded)


def test_plain_calls_pass_and_unknown_ones_fail(machine):
    assert _verdict(machine, "read") == ALLOW
    for name in ("socket", "ptrace", "execve", "mount", "unshare", "seccomp", "sendmsg", "recvmsg"):
        assert _verdict(machine, name) == _EPERM, name
    assert _verdict(machine, "clone3") == refuse(errno.ENOSYS)


def test_every_number_without_a_rule_is_refused(machine):
    rules = seccomp.make_rules(has_scratch=False, can_truncate=False, is_session=False)
    program = seccomp.assemble(rules, machine)
    known = {number(name, machine) for name in rules if name in SYSCALLS}
    arch = seccomp._AUDIT_ARCH[machine]
    for nr in [*range(600), 0x3FFFFFFF]:
        if nr not in known:
            assert interpret(program, nr, arch) == _EPERM, nr


def test_other_architectures_are_killed(machine):
    rules = seccomp.make_rules(has_scratch=True, can_truncate=True, is_session=False)
    program = seccomp.assemble(rules, machine)
    assert interpret(program, 0, 0x40000003) == KILL  # i386
    assert interpret(program, 0x40000000, seccomp._AUDIT_ARCH[machine]) == KILL  # x32


def test_clone_makes_threads_only(machine):
    assert _verdict(machine, "clone", 0x3D0F00) == ALLOW
    assert _verdict(machine, "clone", 0x1200011) == _EPERM
    assert _verdict(machine, "clone", 0x3D0F00 | 0x10000000) == _EPERM
    assert _verdict(machine, "clone", 0x100 | 0x4000 | 17) == _EPERM


def test_a_sessions_fork_goes_to_its_supervisor(machine):
    assert _verdict(machine, "clone", 0x1200011, is_session=True) == ALLOW
    program = seccomp.assemble(seccomp.make_notify_rules(), machine, ALLOW)
    arch = seccomp._AUDIT_ARCH[machine]
    clone, kill = number("clone", machine), number("kill", machine)
    assert clone is not None
    assert kill is not None
    assert interpret(program, clone, arch, (0x1200011, 0, 0, 0, 0, 0)) == NOTIFY
    assert interpret(program, clone, arch, (0x3D0F00, 0, 0, 0, 0, 0)) == ALLOW
    assert interpret(program, kill, arch) == NOTIFY


def test_signals_reach_the_process_itself_only(machine):
    assert _verdict(machine, "kill", 77, 9) == ALLOW
    assert _verdict(machine, "kill", 78, 9) == _EPERM
    assert _verdict(machine, "kill", 0, 9) == _EPERM
    assert _verdict(machine, "kill", -1, 9) == _EPERM


def test_memory_that_no_limit_counts_is_refused(machine):
    private, shared, anonymous, huge = 2, 1, 0x20, 0x40000
    assert _verdict(machine, "mmap", 0, 4096, 3, private | anonymous) == ALLOW
    assert _verdict(machine, "mmap", 0, 4096, 1, shared) == ALLOW
    assert _verdict(machine, "mmap", 0, 4096, 3, shared | anonymous) == _EPERM
    assert _verdict(machine, "mmap", 0, 4096, 3, private | anonymous | huge) == _EPERM


def test_socketpairs_are_streams_and_name_nobody(machine):
    assert _verdict(machine, "socketpair", 1, 1 | 0x80000) == ALLOW
    assert _verdict(machine, "socketpair", 1, 2) == _EPERM
    assert _verdict(machine, "socketpair", 2, 1) == _EPERM
    assert _verdict(machine, "sendto", 5, 0, 0, 0, 0) == ALLOW
    assert _verdict(machine, "sendto", 5, 0, 0, 0, 0x700000000000) == _EPERM
    assert _verdict(machine, "sendto", 5, 0, 0, 0, 1 << 32) == _EPERM


def test_without_scratch_nothing_is_written(machine):
    for name in ("unlinkat", "mkdirat", "fchmod", "ftruncate", "utimensat"):
        assert _verdict(machine, name) == ALLOW
        assert _verdict(machine, name, has_scratch=False) == _EPERM
    truncating = 0o1000
    old = {"has_scratch": False, "can_truncate": False}
    assert _verdict(machine, "openat", -100, 0, truncating, **old) == _EPERM
    assert _verdict(machine, "openat", -100, 0, 0, **old) == ALLOW


def test_limits_can_be_read_and_not_set(machine):
    assert _verdict(machine, "prlimit64", 0, 7, 0, 0x7000) == ALLOW
    assert _verdict(machine, "prlimit64", 0, 7, 0x7000, 0) == _EPERM
    assert _verdict(machine, "prlimit64", 1, 7, 0, 0x7000) == _EPERM


def test_numbers_are_those_of_the_kernel_headers(machine):
    header = pathlib.Path(_HEADERS[machine])
    if not header.exists():
        pytest.skip(f"no kernel headers here: {header}")
    numbers = dict(re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text()))
    if machine == "aarch64":
        numbers["newfstatat"] = numbers["fstatat"]
    for name in SYSCALLS:
        nr = number(name, machine)
        if nr is not None and name in numbers:
            assert nr == int(numbers[name]), name
        else:
            assert nr is None or name not in numbers, name


def test_socket_options_are_allowed_one_by_one(machine):
    for option in (3, 4, 38, 39):
        assert _verdict(machine, "getsockopt", 3, 1, option) == ALLOW
    for level, option in ((1, 17), (1, 77), (1, 59), (0, 3), (6, 4), (1, 0)):
        assert _verdict(machine, "getsockopt", 3, level, option) == _EPERM


def test_nobody_sleeps_on_a_shared_futex(machine):
    private, realtime = 0x80, 0x100
    for command in (0, 9):
        for flags in (0, realtime):
            assert _verdict(machine, "futex", 0, command | flags) == refuse(errno.EAGAIN)
            assert _verdict(machine, "futex", 0, command | flags | private) == ALLOW
    for command in (1, 3, 4, 10):
        assert _verdict(machine, "futex", 0, command) == refuse(0)
        assert _verdict(machine, "futex", 0, command | private) == ALLOW
    for command in (2, 6, 7, 8, 11, 12, 13, 5, 0x86, 0x8D, 14, 127):
        assert _verdict(machine, "futex", 0, command) == refuse(errno.ENOSYS)


def test_clocks_are_ones_own(machine):
    for name in ("clock_gettime", "clock_getres", "clock_nanosleep", "timerfd_create"):
        for clock in (0, 1, 2, 3, 7):
            assert _verdict(machine, name, clock) == ALLOW
        for clock in (-14, (~1 << 3) | 6, 0xFFFFFFF2, (1 << 40) | 0xFFFFFFF2, 16, 8):
            assert _verdict(machine, name, clock) == refuse(errno.EINVAL), clock


def test_flushes_and_advice_pretend_to_succeed(machine):
    for scratch in (True, False):
        for name in ("fsync", "fdatasync", "sync_file_range", "msync", "fadvise64", "flock"):
            assert _verdict(machine, name, has_scratch=scratch) == refuse(0)
    for advice in (3, 20, 21):
        assert _verdict(machine, "madvise", 0, 0, advice) == refuse(0)
    for advice in (0, 1, 4, 8, 14):
        assert _verdict(machine, "madvise", 0, 0, advice) == ALLOW
    for advice in (9, 12, 22, 23, 25, 100, 101, 1000):
        assert _verdict(machine, "madvise", 0, 0, advice) == _EPERM


def test_descriptor_flags_do_not_change_how_a_reader_works(machine):
    nonblocking, append, direct, asynchronous = 0x800, 0x400, 0x4000, 0x2000
    assert _verdict(machine, "fcntl", 1, 4, nonblocking | append | 1) == ALLOW
    for flag in (direct, asynchronous, 0x40000, direct | nonblocking):
        assert _verdict(machine, "fcntl", 1, 4, flag) == _EPERM
    assert _verdict(machine, "pipe2", 0, 0x80800) == ALLOW
    assert _verdict(machine, "pipe2", 0, direct) == refuse(errno.EINVAL)


def test_without_a_root_of_its_own_a_program_asks_nothing_of_others(machine):
    for name in ("readlinkat", "statfs", "fstatfs", "chdir", "fchdir", "uname"):
        assert _verdict(machine, name) == ALLOW
        assert _verdict(machine, name, has_scratch=False) == _EPERM
