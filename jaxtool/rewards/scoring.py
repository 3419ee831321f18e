"""Scores of groups of finished, judged samples: updates n, then calls the reward.

Covered: the order (n first), masked trajectories. Not covered: judging answers (`jaxtool.judges`).
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.core.types import Group
from jaxtool.rewards.base import RewardFn, scores_of
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallStore


def score_groups(
    groups: Sequence[Group],
    reward_fn: RewardFn,
    store: CallStore,
    call_cost: CallCost | None = None,
) -> list[Group]:
    """The groups with a score for each sample but masked ones, which do not enter n either.

    Args:
      groups: judged; each of another problem.
      reward_fn: called once a group, with its unmasked members. Its verdict becomes the sample's.
      call_cost: what m is; None counts calls.
      store: gets the costs of the correct trajectories before they are scored; changed in place.

    Raises:
      ValueError: a sample has no verdict, or a problem has two groups.
    """
    ids = [group.problem.problem_id for group in groups]
    if len(set(ids)) < len(ids):
        raise ValueError("a problem has two groups: its n would be lowered between them")
    return [_scored(group, reward_fn, store, call_cost or CallCost()) for group in groups]


def _scored(group: Group, reward_fn: RewardFn, store: CallStore, call_cost: CallCost) -> Group:
    valid = [sample for sample in group.samples if not sample.is_masked]
    if not valid:
        return group
    if any(sample.is_correct is None for sample in valid):
        raise ValueError(f"problem {group.problem.problem_id!r} has a sample that is not judged")
    trajectories = [sample.trajectory for sample in valid]
    is_correct = [bool(sample.is_correct) for sample in valid]
    costs = [call_cost.cost(trajectory) for trajectory in trajectories]
    correct_costs = [cost for cost, correct in zip(costs, is_correct, strict=True) if correct]
    history = store.update(group.problem.problem_id, correct_costs)
    scores = scores_of(reward_fn, trajectories, is_correct, costs, history)
    scored = iter(
        [
            dataclasses.replace(sample, score=score, is_correct=score.is_correct)
            for sample, score in zip(valid, scores, strict=True)
        ]
    )
    samples = [sample if sample.is_masked else next(scored) for sample in group.samples]
    return dataclasses.replace(group, samples=tuple(samples))
