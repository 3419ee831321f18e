"""Scores of a batch of finished trajectories: groups them, updates n, then calls the reward.

Covered: the order (n first), masked trajectories. Not covered: judging answers (`answer_checker`).
"""

from collections.abc import Sequence

from jaxtool.core.types import Score, Trajectory, split_groups
from jaxtool.rewards.base import RewardFn, scores_of
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallStore


def score_trajectories(
    trajectories: Sequence[Trajectory],
    is_correct: Sequence[bool],
    reward_fn: RewardFn,
    store: CallStore,
    call_cost: CallCost | None = None,
) -> list[Score | None]:
    """One score a trajectory, None for masked ones, which do not enter n either.

    Args:
      trajectories: finished, whole groups; members of a group need not stand together.
      is_correct: whether each answer is equivalent to the reference; ignored for masked ones.
      reward_fn: called once a problem.
      call_cost: what m is; None counts calls.
      store: gets the costs of the correct trajectories before they are scored; changed in place.

    Raises:
      ValueError: the two sequences differ in length.
    """
    if len(trajectories) != len(is_correct):
        raise ValueError(f"{len(trajectories)=} differs from {len(is_correct)=}")
    costs = [(call_cost or CallCost()).cost(trajectory) for trajectory in trajectories]
    scores: list[Score | None] = [None] * len(trajectories)
    for indices in split_groups(trajectories):
        valid = [i for i in indices if not trajectories[i].is_masked]
        if not valid:
            continue
        correct_costs = [costs[i] for i in valid if is_correct[i]]
        history = store.update(trajectories[valid[0]].problem.problem_id, correct_costs)
        group = [trajectories[i] for i in valid]
        verdicts, group_costs = [bool(is_correct[i]) for i in valid], [costs[i] for i in valid]
        group_scores = scores_of(reward_fn, group, verdicts, group_costs, history)
        for i, score in zip(valid, group_scores, strict=True):
            scores[i] = score
    return scores
