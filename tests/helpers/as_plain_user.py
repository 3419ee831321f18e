"""Runs a command as a plain user, from root: `python as_plain_user.py UID COMMAND...`.

Where a directory above Python or above this repository is closed to others (a home under /root), a
private mount namespace shows just what is needed below it. Not a test.
"""

import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from sandbox_server.inside import linux  # noqa: E402 (the path comes first)


def _closed_above(path: str) -> str | None:
    """Topmost directory on the way to `path` that others may not enter."""
    parents = [str(p) for p in reversed(pathlib.Path(path).parents)]
    return next((p for p in [*parents, path] if not os.stat(p).st_mode & 0o001), None)


def open_paths(paths: list[str]) -> None:
    """Makes `paths` reachable for all users, in this mount namespace only."""
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", "", linux.MS_REC | linux.MS_PRIVATE)
    hidden: dict[str, list[tuple[str, int]]] = {}
    for path in paths:
        closed = _closed_above(path)
        if closed is not None and closed != path:
            hidden.setdefault(closed, []).append((path, os.open(path, os.O_PATH)))
    for closed, entries in hidden.items():
        linux.mount("none", closed, "tmpfs", 0, "mode=755")
        for path, fd in entries:
            os.makedirs(path, mode=0o755, exist_ok=True)
            linux.mount(f"/proc/self/fd/{fd}", path, "", linux.MS_BIND | linux.MS_REC)
            os.close(fd)


def main() -> None:
    uid, command = int(sys.argv[1]), sys.argv[2:]
    wanted = {os.path.realpath(p) for p in (sys.prefix, sys.base_prefix, str(ROOT))}
    os.umask(0o022)
    open_paths(sorted(wanted))
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.chdir("/")
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
