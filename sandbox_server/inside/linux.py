"""Thin ctypes layer over the system calls that Python 3.11 lacks. Linux only.

Raises OSError as `os` does. Holds no policy: what is allowed is decided in lockdown and seccomp.
"""

import ctypes
import os
import resource

from sandbox_server.inside.syscalls import number

CLONE_NEWTIME = 0x80
CLONE_NEWNS = 0x20000
CLONE_NEWCGROUP = 0x2000000
CLONE_NEWUTS = 0x4000000
CLONE_NEWIPC = 0x8000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_PRIVATE = 1 << 18
MNT_DETACH = 2

PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_KEEPCAPS = 8
PR_SET_CHILD_SUBREAPER = 36
PR_SET_THP_DISABLE = 41

CAP_DAC_READ_SEARCH = 2
CAP_SETGID = 6
CAP_SETUID = 7
CAP_SYS_ADMIN = 21

ADDR_NO_RANDOMIZE = 0x0040000
MADV_COLLAPSE = 25
MADV_POPULATE_WRITE = 23
AT_RECURSIVE = 0x8000
MOUNT_ATTR_RDONLY = 1
MOUNT_ATTR_NOSUID = 2
MOUNT_ATTR_NODEV = 4
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_ATIME = 0x70  # the field that NOATIME is a value of

MACHINE = os.uname().machine  # not by `platform`, which remembers the host name with it
LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long
LIBC.mount.argtypes = (
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_ulong,
    ctypes.c_char_p,
)


def check(result: int, what: str) -> int:
    """`result`, or OSError with the errno of the last libc call if it is negative."""
    if result < 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"{what}: {os.strerror(errno)}")
    return result


def syscall(name: str, *arguments: int | bytes | ctypes.Array | None) -> int:
    """Calls `name` by number; integers are passed as longs."""
    nr = number(name, MACHINE)
    if nr is None:
        raise OSError(38, f"{name}: not on {MACHINE}")
    converted = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return check(LIBC.syscall(ctypes.c_long(nr), *converted), name)


def prctl(option: int, a: int = 0, b: int = 0, c: int = 0, d: int = 0) -> int:
    return syscall("prctl", option, a, b, c, d)


def unshare(flags: int) -> None:
    check(LIBC.unshare(ctypes.c_int(flags)), f"unshare({flags:#x})")


def setns(fd: int, flags: int) -> None:
    check(LIBC.setns(ctypes.c_int(fd), ctypes.c_int(flags)), "setns")


def mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = LIBC.mount(
        source.encode(), target.encode(), kind.encode(), flags, options.encode() or None
    )
    check(result, f"mount {kind or source} on {target}")


def umount_detach(target: str) -> None:
    check(LIBC.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def pivot_root(new_root: str, put_old: str) -> None:
    syscall("pivot_root", new_root.encode(), put_old.encode())


def _set_attributes(path: str, attributes: int, cleared: int) -> None:
    # struct mount_attr: attr_set, attr_clr, propagation, userns_fd
    buffer = (ctypes.c_uint64 * 4)(attributes, cleared, 0, 0)
    syscall("mount_setattr", -100, path.encode(), AT_RECURSIVE, buffer, 32)


def make_tree_read_only(path: str, with_devices: bool = False) -> None:
    """Makes the mount at `path`, and those below it, read-only and nosuid.

    Also without access times, which the next program could read, where this process may change that.
    """
    attributes = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | (0 if with_devices else MOUNT_ATTR_NODEV)
    try:
        try:
            wanted = attributes | MOUNT_ATTR_NOATIME
            _set_attributes(path, wanted, MOUNT_ATTR_ATIME)
        except PermissionError:  # a mount of a user namespace above ours keeps its access times
            _set_attributes(path, attributes, 0)
    except OSError:  # before Linux 5.12: keep what a nested mount must not clear
        flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | (0 if with_devices else MS_NODEV)
        locked = os.statvfs(path).f_flag & (MS_NOEXEC | 1024 | 2048 | 4096)
        mount("none", path, "", flags | locked)


def set_capabilities(capabilities: int) -> None:
    """Sets effective and permitted capabilities to the bit mask, inheritable to none."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    low, high = capabilities & 0xFFFFFFFF, capabilities >> 32
    data = (ctypes.c_uint32 * 6)(low, low, 0, high, high, 0)
    syscall("capset", header, data)


def effective_capabilities() -> int:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    syscall("capget", header, data)
    return data[0] | (data[3] << 32)


def die_with_parent(parent: int) -> None:
    """SIGKILL for this process when its parent ends; exits if that has already happened."""
    prctl(PR_SET_PDEATHSIG, 9)
    if os.getppid() != parent:
        os._exit(1)


def wait_for(pid: int) -> int:
    """Stays as the parent of `pid`, holding no descriptors. Its exit code modulo 256."""
    os.closerange(3, 256)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def set_limit(kind: int, value: int) -> None:
    """Soft and hard limit; never above the present hard limit."""
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        value = min(value, hard)
    resource.setrlimit(kind, (value, value))
