"""Several data sets as one task, each with a weight: its share of every run of training problems.

The shares hold in the stream of problems, whatever the sizes of the sets: a small set comes round more often. Not
covered: the stream itself (`batches`), weights that change as a run goes on.
"""

import dataclasses
import math
from collections import Counter

from jaxtool.core.types import Problem
from jaxtool.data.problems import Split, Task, apportion


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """One data set of a mixture."""

    task: Task
    weight: float  # against those of the other parts

    def __post_init__(self) -> None:
        if not 0 < self.weight < math.inf:
            raise ValueError(f"Part.weight={self.weight} must be above 0 and finite")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
    """A task of several. Their problems must have different problem_ids, as those of different files have."""

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if len(self.parts) < 2:
            raise ValueError("Mixture.parts needs two parts or more: use the task of one by itself")

    @property
    def shares(self) -> tuple[float, ...]:
        """The weights, so that they sum to 1."""
        total = sum(part.weight for part in self.parts)
        return tuple(part.weight / total for part in self.parts)

    def by_part(self, split: Split, count: int | None, seed: int) -> list[list[Problem]]:
        """`count` problems in the parts' shares, part by part; None: all of each part.

        Raises:
          ValueError: a part holds fewer than its share, or two parts have a problem_id in common.
        """
        if count is None:
            counts: list[int | None] = [None] * len(self.parts)
        else:
            counts = list(apportion(self.shares, count))
        drawn = [
            part.task.problems(split, number, seed)
            for part, number in zip(self.parts, counts, strict=True)
        ]
        times = Counter(
            name for part in drawn for name in dict.fromkeys(p.problem_id for p in part)
        )
        if twice := [name for name, number in times.items() if number > 1]:
            raise ValueError(
                f"{len(twice)} problems stand in two parts of the mixture, {twice[0]!r} for one: name each "
                "file in one part only"
            )
        return drawn

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` problems in the parts' shares, one part after the other; None: all of each part."""
        return [problem for part in self.by_part(split, count, seed) for problem in part]
