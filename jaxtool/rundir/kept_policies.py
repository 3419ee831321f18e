"""Policies that a run keeps besides its last one: WORKDIR/policies/STEP, by a setting of the run.

They are results, as the last policy is: nothing is resumed from them. A run that is killed and repeats some
steps writes the same policies again. Not covered: which step is the best (`best_policy`), checkpoints
(`checkpoints`), how a policy is merged with an adapter (`jaxtool.train.lora_run`).
"""

import dataclasses
import shutil
from pathlib import Path

from jaxtool.core.ranges import check_range
from jaxtool.parallel import hosts
from jaxtool.rundir.checkpoints import is_policy

_FOLDER = "policies"


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeepPolicies:
    """Which steps' policies a run keeps. A policy is as large as the float32 parameters."""

    every: int | None = None  # steps; None: none for its number
    last: int | None = None  # so many of those, the newest; None: all
    best: bool = False  # the one of the best validation accuracy; of equal ones the earliest

    def __post_init__(self) -> None:
        check_range(self, "every", "last", least=1)
        if self.every is None and not self.best:
            raise ValueError("KeepPolicies keeps nothing: set KeepPolicies.every, or best = True")
        if self.every is None and self.last is not None:
            raise ValueError(
                f"KeepPolicies.last={self.last} needs KeepPolicies.every: the best policy is one anyway"
            )

    def is_kept(self, step: int) -> bool:
        """Whether the policy after so many steps is kept for its number, until newer ones take its place."""
        return self.every is not None and step % self.every == 0

    def prune(self, workdir: Path) -> None:
        """Deletes those that newer ones replace; several hosts call it together."""
        if self.last is None:
            return
        old = kept_steps(workdir)[: -self.last]

        def delete() -> None:
            for step in old:
                shutil.rmtree(kept_policy(workdir, step), ignore_errors=True)

        hosts.agree(delete)


def kept_policy(workdir: Path, step: int) -> Path:
    """Where a run keeps its policy after so many steps."""
    return workdir / _FOLDER / str(step)


def kept_steps(workdir: Path) -> list[int]:
    """The steps whose policies a run has kept, in order."""
    found = (workdir / _FOLDER).glob("*")
    return sorted(int(path.name) for path in found if path.name.isdecimal() and is_policy(path))
