"""The advantage of each trajectory in its group, by the estimator that a run chose, with shaping."""

import numpy as np

from jaxtool.algos import advantages
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
    """
    group = rewards, group_ids, num_groups, is_valid
    if config.advantage == "leave_one_out":
        plain = advantages.leave_one_out_advantages(*group)
    elif config.advantage == "reinforce_plus_plus":
        plain = advantages.batch_normalized_advantages(*group)
    else:
        by_std = config.advantage == "grpo"
        plain = advantages.group_advantages(*group, normalizes_by_std=by_std)
    if not np.any(shaping):
        return plain
    return advantages.shaped_advantages(
        plain,
        np.where(is_valid, shaping, 0.0).astype(np.float32),
        limit=config.shaping_limit,
        floor=config.shaping_floor,
    )
