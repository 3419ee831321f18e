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
REFER = 1 << 13  # rename and link across directories; refused unless given
# Execute, make devices, sockets and pipes, ioctl of devices: what no execution ever needs. In the
# namespace tier the mounts say what is readable and writable, Landlock refuses these on top.
NEVER = EXECUTE | (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11) | (1 << 15)


def abi() -> int:
    """Landlock ABI of this kernel, 0 if there is none."""
    try:
        return linux.syscall("landlock_create_ruleset", None, 0, 1)
    except OSError:
        return 0


def handled_access(version: int) -> int:
    return (1 << _BITS_BY_ABI.get(version, 16)) - 1


def make_ruleset(version: int, rules: Sequence[tuple[str, int]], handled: int) -> int:
    """File descriptor of a ruleset: of the `handled` access bits only what `rules` give."""
    handled &= handled_access(version)
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
    """Binds this process for good; no_new_privs must be set."""
    linux.syscall("landlock_restrict_self", ruleset, 0)
