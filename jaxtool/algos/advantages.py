"""Group-relative advantages of whole trajectories.

Covered: GRPO's normalised advantage, Dr.GRPO's centred one, leave-one-out (RLOO), REINFORCE++ with
its group baseline, and clipped shaping by a second signal (ASPO).
Not covered: the critic's advantages (`gae`), and giving the advantage to the tokens: the batch does.

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
    of one has mean 0 and std 1 (verl), so its advantage is its reward. The only valid member of a larger
    group has advantage 0: there is nobody to compare it with. A group whose rewards are all equal has
    advantage exactly 0.

    Args:
      rewards: one a trajectory.
      group_ids: in [0, num_groups); the order of rows is free.
      num_groups: number of groups.
      is_valid: False for masked trajectories: they get 0 and do not enter their group's statistics.
      normalizes_by_std: whether to divide.

    Raises:
      ValueError: a group id out of range, or a valid reward that is not finite.
    """
    deviations, count = _deviations(rewards, group_ids, num_groups, is_valid)
    if normalizes_by_std:
        squares = np.bincount(group_ids, weights=deviations**2, minlength=num_groups)
        variance = squares / np.maximum(count - 1, 1)
        std = np.where(count > 1, np.sqrt(variance), 1.0)
        deviations = deviations / (std[group_ids] + STD_EPSILON)
    return deviations.astype(np.float32)


def leave_one_out_advantages(
    rewards: Float32[np.ndarray, " B"],
    group_ids: Int32[np.ndarray, " B"],
    num_groups: int,
    is_valid: Bool[np.ndarray, " B"],
) -> Float32[np.ndarray, " B"]:
    """Aᵢ = rᵢ - mean of the *other* members' rewards = G/(G-1) (rᵢ - mean(r)): an unbiased baseline.

    RLOO (2402.14740), section 2.2. A group of one has no other: its advantage is its reward. The only
    valid member of a larger group has advantage 0, as in TRL.

    Args:
      rewards: one a trajectory.
      group_ids: in [0, num_groups); the order of rows is free.
      num_groups: number of groups.
      is_valid: False for masked trajectories: they get 0 and do not enter their group's statistics.

    Raises:
      ValueError: a group id out of range, or a valid reward that is not finite.
    """
    deviations, count = _deviations(rewards, group_ids, num_groups, is_valid)
    factor = np.where(count > 1, count / np.maximum(count - 1, 1), 1.0)
    return (factor[group_ids] * deviations).astype(np.float32)


def batch_normalized_advantages(
    rewards: Float32[np.ndarray, " B"],
    group_ids: Int32[np.ndarray, " B"],
    num_groups: int,
    is_valid: Bool[np.ndarray, " B"],
) -> Float32[np.ndarray, " B"]:
    """Aᵢ = aᵢ / (std(a) + 1e-6), aᵢ = rᵢ - mean of its group, std (ddof = 0) over the whole batch.

    REINFORCE++ with baseline (2501.03262). Unlike GRPO's, the scale is one for all groups: a group in
    which everybody is right is not blown up.

    Args:
      rewards: one a trajectory.
      group_ids: in [0, num_groups); the order of rows is free.
      num_groups: number of groups.
      is_valid: False for masked trajectories: they get 0 and do not enter their group's statistics.

    Raises:
      ValueError: a group id out of range, or a valid reward that is not finite.
    """
    deviations, _ = _deviations(rewards, group_ids, num_groups, is_valid)
    std = np.std(deviations[is_valid]) if is_valid.any() else 0.0
    return (deviations / (std + STD_EPSILON)).astype(np.float32)


def shaped_advantages(
    advantages: Float32[np.ndarray, " B"],
    shaping: Float32[np.ndarray, " B"],
    *,
    limit: float,
    floor: float,
) -> Float32[np.ndarray, " B"]:
    """Aᵢ + clip(sᵢ, -bᵢ, bᵢ), bᵢ = max(k |Aᵢ|, floor) where sᵢ ≠ 0: shaping that cannot turn A's sign.

    Clipped advantage shaping, ASPO (2508.19201); k < 1. With floor = 0 it is the paper's, and gives no
    signal in a group whose members are all correct (A = 0 there); a floor keeps a bounded one, so
    the sign may turn where |A| < floor.

    Args:
      advantages: from correctness alone.
      shaping: s, from a second signal, 0 where none applies (wrong answers).
      limit: k, as a share of the advantage's size; paper: 0.7 and 0.9.
      floor: smallest bound, in units of the advantage.
    """
    bound = np.maximum(limit * np.abs(advantages), floor)
    return (advantages + np.clip(shaping, -bound, bound)).astype(np.float32)


def _deviations(
    rewards: np.ndarray, group_ids: np.ndarray, num_groups: int, is_valid: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """rᵢ - mean of its group [B], and valid members by group.

    The mean of a group of one is 0; the one valid member of a larger group deviates by 0.
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
    is_alone = np.bincount(group_ids, minlength=num_groups) == 1
    mean = np.where(is_alone, 0.0, total / np.maximum(count, 1))
    return np.where(is_valid, selected - mean[group_ids], 0.0), count
