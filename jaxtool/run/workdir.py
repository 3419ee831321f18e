"""A run directory belongs to one configuration and one seed; anything else is refused."""

import difflib
import pprint
from pathlib import Path
from typing import Any


def claim_workdir(workdir: Path, config: Any, seed: int, init_from: Path | None) -> None:
    """Makes the directory, or checks that the run in it is this one.

    Raises:
      ValueError: naming the first line in which the configurations differ.
    """
    workdir.mkdir(parents=True, exist_ok=True)
    record = workdir / "run_config.txt"
    text = "\n".join(
        [pprint.pformat(config, width=100), f"seed = {seed}", f"init_from = {init_from}", ""]
    )
    if record.is_file():
        before = record.read_text(encoding="utf-8")
        if before != text:
            raise ValueError(
                f"{workdir} holds a run with another configuration ({_first_difference(before, text)}): "
                "choose another --workdir, or delete this one to start over"
            )
        return
    record.write_text(text, encoding="utf-8")


def _first_difference(before: str, after: str) -> str:
    changed = [
        line
        for line in difflib.ndiff(before.splitlines(), after.splitlines())
        if line.startswith(("- ", "+ "))
    ]
    removed = next((line[2:].strip() for line in changed if line.startswith("- ")), "nothing")
    added = next((line[2:].strip() for line in changed if line.startswith("+ ")), "nothing")
    return f"there: {removed}; now: {added}"
