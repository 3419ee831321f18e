"""The policy of a run's best validation: WORKDIR/policies/best_STEP, named as `runs/mine@best`.

Which step is the best follows from files alone: metrics.jsonl has the accuracies, a folder has its step in its name.
A killed run goes back to a checkpoint and repeats steps, so one folder is not enough. Example, with a validation
after every step and a checkpoint after step 2: step 2 has 0.5, step 3 has 0.7, then the run is killed. It goes on
from step 2, and its best is step 2 again. So that policy has to be there still. What is kept:

1. the best of all validations so far;
2. for each checkpoint, the best of those up to it, because the run may go back to it. The newest may be damaged.

Not covered: how a policy is saved (`checkpoints`), when (`jaxtool.train.lora_run`).
"""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from jaxtool.rundir.checkpoints import is_policy
from jaxtool.rundir.jsonl import read_rows
from jaxtool.rundir.run_listing import checkpoints_of

ACCURACY = "validation/accuracy_fraction"  # what the best is the best of
_FOLDER = re.compile(r"best_(\d+)")


def best_folder(workdir: Path, step: int) -> Path:
    """Where the policy after so many steps is kept while it is the best."""
    return workdir / "policies" / f"best_{step}"


def best_step(workdir: Path) -> int | None:
    """Steps of the best policy that is kept; None: there is none."""
    return _best_of(kept_for_best(workdir), accuracies(workdir))


def is_new_best(workdir: Path, step: int) -> bool:
    """Whether the policy after so many steps is not kept and better than all that are."""
    found = accuracies(workdir)
    if step not in found:
        return False
    best = _best_of(kept_for_best(workdir), found)
    return best is None or found[step] > found[best]


def prune_best(workdir: Path, step: int) -> None:
    """Deletes what no longer may become the best of a run of so many steps; one process calls it.

    Later steps go, too: those that a kill has undone, before they are repeated.
    """
    found, kept = accuracies(workdir), kept_for_best(workdir)
    ends = [step, *(end for end in checkpoints_of(workdir) if end <= step)]
    needed = {_best_of([one for one in kept if one <= end], found) for end in ends}
    for one in kept:
        if one not in needed:
            shutil.rmtree(best_folder(workdir, one), ignore_errors=True)


def kept_for_best(workdir: Path) -> list[int]:
    """Steps whose policies are kept because they are, were or may become the best; in order."""
    folders = (
        (_FOLDER.fullmatch(path.name), path) for path in (workdir / "policies").glob("best_*")
    )
    return sorted(int(match[1]) for match, path in folders if match and is_policy(path))


def accuracies(workdir: Path) -> dict[int, float]:
    """Validation accuracy after so many steps; validations that lost too many answers have none."""
    file = workdir / "metrics.jsonl"
    rows = read_rows(file) if file.is_file() else ()
    return {int(row["step"]) + 1: row[ACCURACY] for row in rows if row.get(ACCURACY) is not None}


def _best_of(steps: Iterable[int], found: Mapping[int, float]) -> int | None:
    """The step of the highest accuracy, the earliest of equal ones; steps without one are none."""
    known = [step for step in steps if step in found]
    return min(known, key=lambda step: (-found[step], step)) if known else None
