"""A run directory belongs to one configuration and one seed; anything else is refused."""

import difflib
import inspect
import pprint
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtool.config.callables import callable_name
from jaxtool.parallel import hosts


def claim_workdir(workdir: Path, config: Any, seed: int, init_from: Path | None) -> None:
    """Makes the directory, or checks that the run in it is this one.

    Several hosts call it together, with a directory that all of them see.

    Raises:
      ValueError: naming the first line in which the configurations differ.
    """
    hosts.agree(lambda: _claim(workdir, config, seed, init_from))


def records_dir(stack: ExitStack, workdir: Path) -> Path:
    """Where this process writes what it alone writes: process 0 into the run's directory.

    The others have the same figures; theirs go to a directory that is removed with `stack`.
    """
    if hosts.is_first():
        return workdir
    return Path(stack.enter_context(tempfile.TemporaryDirectory()))


def _claim(workdir: Path, config: Any, seed: int, init_from: Path | None) -> None:
    workdir.mkdir(parents=True, exist_ok=True)
    record = workdir / "run_config.txt"
    text = "\n".join([_text(config), f"seed = {seed}", f"init_from = {init_from}", ""])
    if record.is_file():
        before = record.read_text(encoding="utf-8")
        if before != text:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({_first_difference(before, text)}): "
                "choose another --workdir, or delete this one to start over"
            )
        return
    record.write_text(text, encoding="utf-8")


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
