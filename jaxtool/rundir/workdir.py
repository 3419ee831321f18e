"""A run directory belongs to one process at a time, and says whether a run has begun in it.

Not covered: which run it belongs to (`run_start`).
"""

import contextlib
import errno
import functools
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import ParamSpec

from jaxtool.core.bucket_names import check_local
from jaxtool.core.locks import Held, hold, temporary_directory
from jaxtool.parallel import hosts
from jaxtool.rundir.run_record import LOCK

_P = ParamSpec("_P")
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
      ValueError: a process is in it, which the message names; or it is in a bucket.
    """
    with ExitStack() as stack:
        hosts.agree(lambda: hold_here(stack, workdir))
        yield


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
