"""Policies that a run keeps besides its last one: WORKDIR/policies/STEP, by a setting of the run.

They are results, as the last policy is: nothing is resumed from them. A run that is killed and repeats some
steps writes the same policies again. Not covered: checkpoints (`checkpoints`), how a policy is merged with an
adapter (`jaxtool.train.lora_run`).
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

    every: int  # steps
    last: int | None = None  # so many, the newest; None: all

    def __post_init__(self) -> None:
        check_range(self, "every", least=1)
        if self.last is not None:
            check_range(self, "last", least=1)

    def is_kept(self, step: int) -> bool:
        """Whether the policy after so many steps is kept, until newer ones take its place."""
        return step % self.every == 0

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
