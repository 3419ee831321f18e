"""The namespace tier's surroundings of a fork server: private root, own user and pid namespace.

Called once per fork server, before anything large is imported. As root the user namespace maps a
range of unused ids, so that nothing inside owns a host file; a plain user gets a map of one id.
"""

import contextlib
import errno
import os
import signal
import sys
from collections.abc import Sequence

from sandbox_server.inside import linux, python_files

UID_BASE = 0x70000000  # above the ranges that distributions and container managers hand out
UID_COUNT = 4096
_UID_RANGES = 1 << 16  # of UID_COUNT each, up to 2**31
_SETUP_FLAGS = linux.CLONE_NEWNS | linux.CLONE_NEWNET | linux.CLONE_NEWIPC | linux.CLONE_NEWUTS
_BELOW_TMP = "/.below_tmp"  # a second place in the root for what the scratch hides
_DEVICES = ("/dev/null", "/dev/urandom")
_STAGING = ("/tmp", "/mnt", "/srv", "/media", "/opt", "/var")


def first_uid_of_this_server() -> int:
    """User id of index 0 without a user namespace: servers on one host share none of their ids.

    Or one server's executions would count as tasks of another's (RLIMIT_NPROC).
    """
    return UID_BASE + os.getpid() % _UID_RANGES * UID_COUNT


def _bind(source: str, root: str, with_devices: bool = False) -> None:
    target = root + source
    if os.path.isdir(source):
        os.makedirs(target, mode=0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), mode=0o755, exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o644))
    linux.mount(source, target, "", linux.MS_BIND | linux.MS_REC)
    linux.make_tree_read_only(target, with_devices)


def _link_aliases(root: str) -> None:
    """Copies the links that lead to bound directories: /lib on merged systems, a venv's python."""
    for alias in (*python_files.LIBRARY_DIRS, sys.prefix, sys.base_prefix):
        if os.path.islink(alias) and not os.path.lexists(root + alias):
            os.makedirs(os.path.dirname(root + alias), mode=0o755, exist_ok=True)
            os.symlink(os.readlink(alias), root + alias)


def _staging_directory(readable: Sequence[str]) -> str:
    """A directory to mount the new root on that hides nothing which the root must hold."""
    for path in _STAGING:
        inside = [p for p in readable if p == path or p.startswith(path + "/")]
        if os.path.isdir(path) and not inside:
            return path
    raise FileNotFoundError(f"no directory to build the root on: tried {', '.join(_STAGING)}")


def _hidden(readable: Sequence[str]) -> list[str]:
    """What lies below /tmp (a virtual environment): the scratch hides it."""
    return [path for path in readable if path.startswith("/tmp/")]


def build_root() -> None:
    """Makes a read-only root of the readable paths and moves this process into it."""
    os.umask(0o022)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    readable = python_files.readable_paths()
    root = _staging_directory(readable)
    linux.mount("sandbox", root, "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, "size=256k,mode=755")
    for path in readable:
        _bind(path, root)
    for path in _hidden(readable):
        spare = root + _BELOW_TMP + path.removeprefix("/tmp")
        os.makedirs(spare, mode=0o755)
        linux.mount(path, spare, "", linux.MS_BIND | linux.MS_REC)
        linux.make_tree_read_only(spare, False)
    _link_aliases(root)
    for path in _DEVICES:
        _bind(path, root, with_devices=True)
    os.makedirs(root + "/tmp", mode=0o755, exist_ok=True)
    os.chdir(root)
    try:
        linux.pivot_root(".", ".")
        linux.umount_detach(".")
    except OSError:  # pivot_root is refused in some containers and on an initramfs
        linux.mount(root, "/", "", linux.MS_MOVE)
        os.chroot(".")
    os.chdir("/")
    # The root itself only: what is bound below has its own flags, the devices their own.
    flags = linux.MS_BIND | linux.MS_REMOUNT | linux.MS_RDONLY | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("none", "/", "", flags)


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="ascii") as file:
        file.write(text)


def _unshare_user() -> None:
    """A new user namespace; an error says in words what is missing."""
    try:
        linux.unshare(linux.CLONE_NEWUSER)
    except OSError as error:
        why = "refused by this system"
        if error.errno in (errno.ENOSPC, errno.EUSERS):
            why = "off or used up (sysctl user.max_user_namespaces)"
        raise OSError(error.errno, f"user namespaces are {why}") from error


def _map_range_from_outside(pid: int, go: int, done: int) -> None:
    """Waits on pipe `go`, then maps the range into the user namespace of `pid`."""
    if os.read(go, 1) != b"1":
        return
    _write(f"/proc/{pid}/uid_map", f"0 {UID_BASE} {UID_COUNT}")
    _write(f"/proc/{pid}/gid_map", f"0 {UID_BASE} {UID_COUNT}")
    os.write(done, b"1")


def _enter_as_root() -> None:
    pid = os.getpid()
    go_read, go_write = os.pipe()
    done_read, done_write = os.pipe()
    helper = os.fork()
    if helper == 0:
        try:
            linux.die_with_parent(pid)
            os.close(done_read)
            os.close(go_write)
            _map_range_from_outside(pid, go_read, done_write)
        finally:
            os._exit(0)
    os.close(done_write)
    os.close(go_read)
    try:
        linux.unshare(_SETUP_FLAGS)
        linux.check(linux.LIBC.sethostname(b"sandbox", 7), "sethostname")
        build_root()
        os.setgroups([])
        _unshare_user()
        os.write(go_write, b"1")
        if os.read(done_read, 1) != b"1":
            raise PermissionError("the range of user ids could not be mapped")
    finally:
        # While this process still has the helper's user id. It waits for us, or has ended.
        os.kill(helper, signal.SIGKILL)
        os.waitpid(helper, 0)
        os.close(go_write)
        os.close(done_read)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _enter_as_user() -> None:
    uid, gid = os.getuid(), os.getgid()
    _unshare_user()
    with contextlib.suppress(OSError):  # gVisor has no such file
        _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"1000 {uid} 1")
    _write("/proc/self/gid_map", f"1000 {gid} 1")
    linux.unshare(_SETUP_FLAGS)
    linux.check(linux.LIBC.sethostname(b"sandbox", 7), "sethostname")
    build_root()


def enter() -> bool:
    """Moves this process into new namespaces. True if executions get ids of their own.

    The caller forks next: the child is process 1 of the new pid namespace.
    """
    has_range = os.geteuid() == 0 and bool(
        linux.effective_capabilities() & (1 << linux.CAP_SYS_ADMIN)
    )
    if has_range:
        _enter_as_root()
    else:
        _enter_as_user()
    with contextlib.suppress(OSError):
        linux.unshare(linux.CLONE_NEWCGROUP)
    linux.unshare(linux.CLONE_NEWPID | linux.CLONE_NEWNS)
    return has_range


def scratch_inodes(size_bytes: int) -> int:
    """Files and directories that a /tmp of `size_bytes` may hold; a later change of size leaves it."""
    return max(64, min(4096, size_bytes // 4096))


def mount_scratch(size_bytes: int, uid: int, readable: Sequence[str]) -> None:
    """A private /tmp of `size_bytes` in a mount namespace of this process.

    `readable` is what the root was built of: what lies below /tmp is put back on top.
    """
    linux.unshare(linux.CLONE_NEWNS)
    inodes = scratch_inodes(size_bytes)
    options = f"size={size_bytes},nr_inodes={inodes},mode=700,uid={uid},gid={uid}"
    linux.mount("scratch", "/tmp", "tmpfs", linux.MS_NOSUID | linux.MS_NODEV, options)
    # Whole trees of the read-only root, so that no directory on the way is the program's to write to.
    for top in sorted({path.split("/")[2] for path in _hidden(readable)}):
        os.mkdir(f"/tmp/{top}", mode=0o755)
        linux.mount(f"{_BELOW_TMP}/{top}", f"/tmp/{top}", "", linux.MS_BIND | linux.MS_REC)


def resize_scratch(size_bytes: int) -> None:
    """Changes the size of this process's /tmp, while it may still mount."""
    flags = linux.MS_REMOUNT | linux.MS_NOSUID | linux.MS_NODEV
    linux.mount("scratch", "/tmp", "tmpfs", flags, f"size={size_bytes}")
