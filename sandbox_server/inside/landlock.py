"""Landlock: which files a process may open, by ctypes. Sees paths only, no system calls.

Landlock does not cover stat, chmod, chown, utime and (before ABI 3) truncate: seccomp does.
"""

import ctypes
import os
import struct
from collections.abc import Sequence

from sandbox_server.inside import linux

READ_FILE = 1 << 2
READ_DIR = 1 << 3
READ = READ_FILE | READ_DIR
WRITE_FILE = 1 << 1
EXECUTE = 1 << 0
_BITS_BY_ABI = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}
SCRATCH_BITS = (
    WRITE_FILE
    | READ
    | (1 << 4)
    | (1 << 5)
    | (1 << 7)
    | (1 << 8)
    | (1 << 12)
    | (1 << 13)
    | (1 << 14)
)  # remove dir and file, make dir, file and symlink, refer, truncate; no devices, no sockets


def abi() -> int:
    """Landlock ABI of this kernel, 0 if there is none."""
    try:
        return linux.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def handled_access(version: int) -> int:
    return (1 << _BITS_BY_ABI.get(version, 16)) - 1


def make_ruleset(version: int, rules: Sequence[tuple[str, int]]) -> int:
    """File descriptor of a ruleset that allows `rules` (path, access bits) and no more."""
    handled = handled_access(version)
    net = 3 if version >= 4 else 0  # TCP bind and connect: none is ever allowed
    scoped = 3 if version >= 6 else 0  # abstract sockets and signals to the outside
    attribute = struct.pack("QQQ", handled, net, scoped)
    size = 8 if version < 4 else 16 if version < 6 else 24
    ruleset = linux.syscall("landlock_create_ruleset", attribute, size, 0)
    for path, access in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue
        try:
            if not os.path.isdir(path):
                access &= READ_FILE | WRITE_FILE | EXECUTE | (1 << 14)
            rule = ctypes.create_string_buffer(struct.pack("=Qi", access & handled, fd))
            linux.syscall("landlock_add_rule", ruleset, 1, rule, 0)
        finally:
            os.close(fd)
    return ruleset


def restrict(ruleset: int) -> None:
    """Binds this process (no_new_privs must be set) and closes the ruleset."""
    linux.syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)
