"""A run directory belongs to one process at a time, and says whether a run has begun in it.

Not covered: which run it belongs to (`run_start`).
"""

import contextlib
import errno
import functools
import secrets
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec

from jaxtool.core.bucket_names import check_local
from jaxtool.core.locks import Held, hold, temporary_directory
from jaxtool.parallel import hosts
from jaxtool.rundir.run_record import LOCK

_P = ParamSpec("_P")
SEEN_S = (
    60.0  # for a new file of one host to be seen by the others; NFS keeps a listing for so long
)
_MARK = ".hosts-"  # and a random name: nobody has looked for it before, so no cache says that it is not there
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Files that only a run which has begun leaves, as patterns.
_RESULTS = (
    *("policy/model_config.json", "checkpoints/[0-9]*", "metrics.jsonl", "trajectories.jsonl"),
    "answers/*/*/[0-9]*.parquet",
)


def is_begun(workdir: Path) -> bool:
    """Whether a run has left anything in the directory that is worth keeping."""
    found = (path for pattern in _RESULTS for path in workdir.glob(pattern))
    return any(path.is_dir() or path.stat().st_size for path in found)


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of the directory, which is made; several hosts call it together.

    Raises:
      ValueError: a process is in it, which the message names; it is in a bucket; or the hosts see different directories.
    """
    with ExitStack() as stack:
        hosts.agree(lambda: hold_here(stack, workdir))
        if not hosts.is_single():
            _check_one_for_all(workdir)
        yield


def _check_one_for_all(workdir: Path) -> None:
    """Raises ValueError if a host does not see in the directory what the first one writes there."""

    def written() -> str:
        for left in workdir.glob(f"{_MARK}*"):  # by a start that was killed
            left.unlink(missing_ok=True)
        mark = workdir / f"{_MARK}{secrets.token_hex(8)}"
        mark.write_bytes(b"")
        return mark.name

    mark = workdir / hosts.agree(written)
    until = time.monotonic() + SEEN_S
    while not (is_seen := mark.exists()) and time.monotonic() < until:
        time.sleep(0.2)
    seen = hosts.exchange((str(workdir.absolute()), is_seen))
    if hosts.is_first():
        mark.unlink(missing_ok=True)
    blind = [host for host, (_, sees) in enumerate(seen) if not sees]
    if blind:
        raise ValueError(
            f"{seen[0][0]} of host 0 is not {seen[blind[0]][0]} of host {blind[0]}: a file of host 0 is not there "
            f"after {SEEN_S:.0f} s; give a --workdir that all hosts share, on NFS or in a mounted bucket"
        )


def holds_workdir(train: Callable[_P, Path]) -> Callable[_P, Path]:
    """A run that holds the directory of its argument `workdir` for as long as it runs."""

    @functools.wraps(train)
    def holding(*args: _P.args, **kwargs: _P.kwargs) -> Path:
        workdir = kwargs["workdir"]
        assert isinstance(workdir, Path)
        with hold_workdir(workdir):
            return train(*args, **kwargs)

    return holding


def records_dir(stack: ExitStack, workdir: Path) -> Path:
    """Where this process writes what it alone writes: process 0 into the run's directory.

    The others have the same figures; theirs go to a directory that is removed with `stack`.
    """
    if hosts.is_first():
        return workdir
    return stack.enter_context(temporary_directory("jaxtool-records-"))


def hold_here(stack: ExitStack, workdir: Path) -> None:
    """As `hold_workdir`, until `stack` ends, in one process and without asking jax, which would take the devices."""
    check_local(workdir, "--workdir")
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        stack.enter_context(hold(workdir / LOCK))
    except Held as error:
        raise ValueError(
            f"{workdir} is in use by {error}: wait until it has ended, or choose another --workdir"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        print(
            f"warning: {workdir} is on a file system without locks ({error}): start no second run in it",
            file=sys.stderr,
            flush=True,
        )
