"""The advantage of each trajectory in its group, by the advantage that a run chose, with shaping."""

import numpy as np

from jaxtool.config.callables import callable_name
from jaxtool.learn.advantage_choices import Advantage
from jaxtool.learn.grpo import GrpoConfig


def trajectory_advantages(
    rewards: np.ndarray,
    shaping: np.ndarray,
    group_ids: np.ndarray,
    num_groups: int,
    is_valid: np.ndarray,
    config: GrpoConfig,
) -> np.ndarray:
    """[B] float32, 0 for masked trajectories.

    Args:
      rewards: [B] float32.
      shaping: [B] float32, added to the advantage within bounds (`Score.shaping`); 0 for none.
      group_ids: [B] int32 in [0, num_groups).
      num_groups: number of groups.
      is_valid: [B] bool, False for masked trajectories.

    Raises:
      ValueError: the advantage gave another number of values, or a valid one that is not finite.
    """
    found = config.advantage(rewards, group_ids, num_groups, is_valid)
    plain = _checked(found, is_valid, config.advantage)
    if not np.any(shaping):
        return plain
    return config.shaping(plain, np.where(is_valid, shaping, 0.0).astype(np.float32))


def _checked(found: np.ndarray, is_valid: np.ndarray, advantage: Advantage) -> np.ndarray:
    """What the advantage gave, as float32 and 0 for masked trajectories."""
    name = callable_name(advantage)
    found = np.asarray(found)
    if found.shape != is_valid.shape or found.dtype.kind not in "fiu":
        raise ValueError(
            f"GrpoConfig.advantage={name} gave {found.dtype} of shape {found.shape} for "
            f"{is_valid.size} trajectories; return one number a trajectory, [{is_valid.size}]"
        )
    is_broken = is_valid & ~np.isfinite(found)
    if is_broken.any():
        first = int(np.flatnonzero(is_broken)[0])
        raise ValueError(
            f"GrpoConfig.advantage={name} gave {found[first]} for trajectory {first}; return "
            "finite numbers (a group of equal rewards has standard deviation 0: add an epsilon)"
        )
    return np.where(is_valid, found, 0).astype(np.float32)
