"""Which groups and which members of a group are worth learning from. Plain numpy on the host.

Covered: groups whose rewards differ (DAPO's dynamic sampling, by reward), and GRPO-RoC's choice among
oversampled members. Not covered: looking at trajectories (`rollout.selection`).
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int32

# Keeps a penalty of 0 from being an infinite weight: such members come first, in random order.
PENALTY_EPSILON = 1e-6


def groups_with_spread(
    rewards: Float32[np.ndarray, " B"],
    group_ids: Int32[np.ndarray, " B"],
    num_groups: int,
    is_valid: Bool[np.ndarray, " B"],
    *,
    min_std: float,
) -> Bool[np.ndarray, " n"]:
    """std of the group's valid rewards > min_std, for each of n = num_groups; False with one member.

    Dynamic sampling, DAPO (2503.14476), equation 11, on the reward that is learned and not on
    correctness: groups that are all correct are just those from which OTC learns.

    Args:
      rewards: one a trajectory.
      group_ids: in [0, num_groups).
      num_groups: number of groups.
      is_valid: False for masked trajectories.
      min_std: population standard deviation; 0 keeps every group in which two rewards differ.
    """
    keeps = np.zeros(num_groups, bool)
    for group in range(num_groups):
        own = rewards[(group_ids == group) & is_valid].astype(np.float64)
        # In float64 the mean of equal float32 numbers is exact, so their std is exactly 0.
        keeps[group] = own.size > 1 and np.std(own) > min_std
    return keeps


def resample_on_correct(
    is_correct: Bool[np.ndarray, " n"],
    penalties: Float[np.ndarray, " n"],
    keep: int,
    uniforms: Float[np.ndarray, " n"],
) -> Int[np.ndarray, " k"]:
    """Indices of `keep` of n members: the same share of right and wrong ones, the clean among the right.

    GRPO-RoC, rStar2-Agent (2508.20722), section 3.2: wrong ones uniformly (failures stay diverse), right
    ones without replacement with probability inverse to their penalty (failed calls, bad format).
    Drawn by the largest u^(1/w), w = 1 / penalty (Efraimidis & Spirakis 2006).

    Args:
      is_correct: of the members.
      penalties: p_err + p_format >= 0 of each member; those of wrong ones are not read.
      keep: number of members to keep, at most n.
      uniforms: one draw in (0, 1) a member: the only randomness.
    """
    total = is_correct.size
    if not 0 < keep <= total:
        raise ValueError(f"cannot keep {keep} of {total} members")
    wrong = int(total - is_correct.sum())
    # Rounded half up, then held to what is there.
    keep_wrong = min(wrong, (2 * wrong * keep + total) // (2 * total))
    keep_wrong = max(keep_wrong, keep - (total - wrong))
    # log of u^(1/w); the largest are kept.
    keys = np.log(uniforms) * np.where(is_correct, penalties + PENALTY_EPSILON, 1.0)
    order = np.argsort(-keys, kind="stable")
    chosen = [i for i in order if not is_correct[i]][:keep_wrong]
    chosen += [i for i in order if is_correct[i]][: keep - keep_wrong]
    return np.sort(np.array(chosen, np.int64))
