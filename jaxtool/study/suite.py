"""What a study is made of: arms that start from one another, and what all of them are asked.

Every arm of a seed starts from the same base or cold start, or from the policy of another arm that did, and
has the same task, steps, batch, learning rate and budgets; what differs is in its files and bindings.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxtool.config import loader

Set = Literal["default", "ablations", "all"]
RECIPE = "retool_grpo.gin"  # in which arms without rollouts are asked


@dataclasses.dataclass(frozen=True, kw_only=True)
class Arm:
    """One stage of training that starts where `start` ended."""

    name: str
    files: tuple[str, ...]  # of the suite's folder, or paths of the repository; later ones win
    params: tuple[str, ...] = ()  # bindings that win over all files
    start: str | None = "cold_start"  # the arm whose policy it continues; None: that of its files
    is_trained: bool = True  # False: the policy that it starts from, asked in this arm's protocol
    # Protocol in which a stage without rollouts is asked; None: that of its own rollouts.
    protocol: str | None = None
    what: str  # one line for tables


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suite:
    """The arms of a study on one policy and task. Names of arms mean the same role in every suite."""

    folder: str  # of its gin files; `RECIPE` is one of them
    default: tuple[Arm, ...]
    ablations: tuple[Arm, ...] = ()
    beside: tuple[str, ...] = ()  # arms that ablations stand beside
    equal_steps: str  # ReTool-GRPO for as many steps as OTC from its policy has in all
    mental_protocol: str  # without a tool: in it a policy that has one must answer at once
    mental_problems: int = 256  # of the validation split, if the study asks as many held-out ones
    problems: int = 600  # held out, of each seed
    # Of the policy, at which arms are put beside each other.
    token_budgets: tuple[int, ...] = (30_000, 60_000, 90_000, 150_000)

    @functools.cached_property
    def arms(self) -> Mapping[str, Arm]:
        return {arm.name: arm for arm in (*self.default, *self.ablations)}

    def select(self, names: Sequence[str], chosen: Set = "default") -> tuple[Arm, ...]:
        """Arms of a set, or those of `names`, each after the one that it starts from.

        Raises:
          ValueError: naming what is no arm.
        """
        if unknown := [name for name in names if name not in self.arms]:
            raise ValueError(f"unknown arms {', '.join(unknown)}; there are {', '.join(self.arms)}")
        ablations = (*(self.arms[name] for name in self.beside), *self.ablations)
        sets = {"default": self.default, "ablations": ablations, "all": self.arms.values()}
        order: dict[str, Arm] = {}
        for arm in [self.arms[name] for name in names] or sets[chosen]:
            line = [arm]
            while (start := line[-1].start) is not None:
                line.append(self.arms[start])
            order |= {one.name: one for one in reversed(line) if one.name not in order}
        return tuple(order.values())

    def path(self, file: str) -> Path:
        """The full path of one of `Arm.files`."""
        root = loader.REPOSITORY_ROOT
        return root / file if "/" in file else root / self.folder / file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Changes:
    """What a study does otherwise than its suite says, the same in every arm."""

    steps: int | None = None  # of every arm that trains
    params: tuple[str, ...] = ()  # bindings of every arm with rollouts, and of the evaluations

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"{self.steps=} must be >= 1")
