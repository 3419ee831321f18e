"""The group advantages that a run chooses from, as frozen objects that gin can build.

An advantage gets the rewards of all groups of a step and gives one number a trajectory. A function of
the researcher's own does as well: `GrpoConfig.advantage = @my_module.my_advantage`. It may divide by
what it likes: what it returns is checked by `group_advantages`. The equations are in
`algos.advantages`.
"""

import dataclasses
from typing import Protocol

import numpy as np

from jaxtool.algos import advantages
from jaxtool.core.ranges import check_range

ARGUMENTS = ("rewards", "group_ids", "num_groups", "is_valid")


class Advantage(Protocol):
    """Implementations are frozen dataclasses or functions: hashable, so jit-static."""

    def __call__(
        self, rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray, /
    ) -> np.ndarray:
        """[B], the advantage of each trajectory; what masked ones get is set to 0.

        Args:
          rewards: [B] float32, one a trajectory.
          group_ids: [B] int32 in [0, num_groups): trajectories of one problem share a group.
          num_groups: number of groups.
          is_valid: [B] bool, False for masked trajectories, which must enter no statistics.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupNormalized:
    """GRPO's: the reward minus the group's mean, over the group's standard deviation."""

    def __call__(
        self, rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray, /
    ) -> np.ndarray:
        return advantages.group_advantages(
            rewards, group_ids, num_groups, is_valid, normalizes_by_std=True
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoStd:
    """Dr.GRPO's: the reward minus the group's mean. Rewards keep their scale."""

    def __call__(
        self, rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray, /
    ) -> np.ndarray:
        return advantages.group_advantages(
            rewards, group_ids, num_groups, is_valid, normalizes_by_std=False
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """RLOO's: the reward minus the mean of the group's other members."""

    def __call__(
        self, rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray, /
    ) -> np.ndarray:
        return advantages.leave_one_out_advantages(rewards, group_ids, num_groups, is_valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReinforcePlusPlus:
    """REINFORCE++ with baseline: minus the group's mean, over the standard deviation of the batch."""

    def __call__(
        self, rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray, /
    ) -> np.ndarray:
        return advantages.batch_normalized_advantages(rewards, group_ids, num_groups, is_valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClippedShaping:
    """Bounds of what a reward adds to advantages (`Score.shaping`), whichever advantage is chosen."""

    limit: float = 0.7  # k, a share of the advantage's size; ASPO: 0.7 and 0.9
    floor: float = 0.0  # smallest bound; > 0 keeps the signal in groups where all are correct

    def __post_init__(self) -> None:
        check_range(self, "limit", "floor", least=0)

    def __call__(self, plain: np.ndarray, shaping: np.ndarray, /) -> np.ndarray:
        return advantages.shaped_advantages(plain, shaping, limit=self.limit, floor=self.floor)
