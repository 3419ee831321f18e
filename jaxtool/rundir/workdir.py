"""A run directory belongs to one configuration and one seed, and to one process at a time.

It belongs to a configuration once something of the run is in it: a checkpoint, a row of metrics, a
policy. A start that was refused before, for a typo, leaves it free.
"""

import contextlib
import difflib
import errno
import functools
import inspect
import pprint
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ParamSpec

from jaxtool.config.callables import callable_name
from jaxtool.core.files import write_text
from jaxtool.core.locks import Held, hold, temporary_directory
from jaxtool.parallel import hosts

_P = ParamSpec("_P")
_LOCK = "run.lock"
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
# Files that only a run which has begun leaves, as patterns.
_RESULTS = ("policy/model_config.json", "checkpoints/[0-9]*", "metrics.jsonl", "trajectories.jsonl")


def claim_workdir(workdir: Path, config: Any, seed: int, init_from: Path | None) -> None:
    """Makes the directory, or checks that the run in it is this one.

    Several hosts call it together, with a directory that all of them see.

    Raises:
      ValueError: naming the first line in which the configurations differ.
    """
    hosts.agree(lambda: _claim(workdir, config, seed, init_from))


def is_begun(workdir: Path) -> bool:
    """Whether a run has left anything in the directory that is worth keeping."""
    found = (path for pattern in _RESULTS for path in workdir.glob(pattern))
    return any(path.is_dir() or path.stat().st_size for path in found)


@contextlib.contextmanager
def hold_workdir(workdir: Path) -> Iterator[None]:
    """Keeps other processes out of the directory, which is made; several hosts call it together.

    Raises:
      ValueError: a process is in it, which the message names.
    """
    with ExitStack() as stack:
        hosts.agree(lambda: _hold(stack, workdir))
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


def _hold(stack: ExitStack, workdir: Path) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        stack.enter_context(hold(workdir / _LOCK))
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


def _claim(workdir: Path, config: Any, seed: int, init_from: Path | None) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    record = workdir / "run_config.txt"
    text = "\n".join([_text(config), f"seed = {seed}", f"init_from = {init_from}", ""])
    before = record.read_text(encoding="utf-8") if record.is_file() else None
    if before is not None and before != text and is_begun(workdir):
        raise ValueError(
            f"{workdir} holds a run with another configuration ({_first_difference(before, text)}): "
            "choose another --workdir, or delete this one to start over"
        )
    if before != text:
        write_text(record, text)


class _Printer(pprint.PrettyPrinter):
    """Functions by their names: their own text holds an address, which differs in every process."""

    def format(
        self, object: Any, context: dict[int, int], maxlevels: int, level: int
    ) -> tuple[str, bool, bool]:
        if inspect.isroutine(object):
            return callable_name(object), True, False
        return super().format(object, context, maxlevels, level)


def _text(config: Any) -> str:
    """One line a field, so that each value passes through `_Printer.format`."""
    return _Printer(width=1).pformat(config)


def _first_difference(before: str, after: str) -> str:
    changed = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith(("- ", "+ "))
    ]
    removed = next((line[2:].strip() for line in changed if line.startswith("- ")), "nothing")
    added = next((line[2:].strip() for line in changed if line.startswith("+ ")), "nothing")
    return f"there: {removed}; now: {added}"
