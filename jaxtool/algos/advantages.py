"""Group-relative advantages of whole trajectories.

Covered: GRPO's normalised advantage and Dr.GRPO's centred one.
Not covered: the critic's advantages (GAE), and giving the advantage to the tokens: the batch does.

Plain numpy on the host: rewards are born there, one number a trajectory, and groups are whole there.
Deviation from GRPO as printed: the standard deviation is the sample estimate (ddof = 1) and 1e-6 is
added to it, as verl does; the paper names neither.
"""

import numpy as np
from jaxtyping import Bool, Float32, Int32

# Added to the standard deviation: verl, core_algos.compute_grpo_outcome_advantage.
STD_EPSILON = 1e-6


def group_advantages(
    rewards: Float32[np.ndarray, " B"],
    group_ids: Int32[np.ndarray, " B"],
    num_groups: int,
    is_valid: Bool[np.ndarray, " B"],
    *,
    normalizes_by_std: bool,
) -> Float32[np.ndarray, " B"]:
    """Aᵢ = (rᵢ - mean(r)) / (std(r) + 1e-6), or Aᵢ = rᵢ - mean(r) without the division.

    With std: GRPO (2402.03300), section 4.1.2, outcome supervision. Without: Dr.GRPO (2503.20783),
    section 3.2. Mean and std (ddof = 1) are over the valid members of the trajectory's group. A group
    with one valid member has mean 0 and std 1 (verl), so its advantage is its reward. A group whose
    rewards are all equal has advantage exactly 0.

    Args:
      rewards: one a trajectory.
      group_ids: in [0, num_groups); the order of rows is free.
      num_groups: number of groups.
      is_valid: False for masked trajectories: they get 0 and do not enter their group's statistics.
      normalizes_by_std: whether to divide.

    Raises:
      ValueError: a group id out of range, or a valid reward that is not finite.
    """
    if group_ids.size and not 0 <= group_ids.min() <= group_ids.max() < num_groups:
        raise ValueError(f"group ids {group_ids.min()}..{group_ids.max()}, {num_groups=}")
    if not np.all(np.isfinite(rewards[is_valid])):
        raise ValueError(f"valid rewards must be finite: {rewards[is_valid]}")
    # bincount sums in float64: exact for equal float32 rewards, so these give exactly 0 and not a
    # rounding error divided by a tiny std.
    selected = np.where(is_valid, rewards, 0.0)
    count = np.bincount(group_ids, weights=is_valid, minlength=num_groups)
    total = np.bincount(group_ids, weights=selected, minlength=num_groups)
    mean = np.where(count > 1, total / np.maximum(count, 1), 0.0)
    deviations = np.where(is_valid, selected - mean[group_ids], 0.0)
    if normalizes_by_std:
        squares = np.bincount(group_ids, weights=deviations**2, minlength=num_groups)
        variance = squares / np.maximum(count - 1, 1)
        std = np.where(count > 1, np.sqrt(variance), 1.0)
        deviations = deviations / (std[group_ids] + STD_EPSILON)
    return deviations.astype(np.float32)
