"""Scores of groups of finished, judged samples: updates n, then calls the reward.

Covered: the order (n first), groups that lost a sample. Not covered: judging answers (`jaxtool.judges`).
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
    """The groups with a score for each sample; a group that lost one has no scores and does not enter n.

    Its other samples are those that did not need the tool: beside each other they would teach that calls
    do not pay, and that n is what those needed that called least.

    Args:
      groups: judged; each of another problem.
      reward_fn: called once a group, with all its members. Its verdict becomes the sample's.
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
    if not group.is_whole:
        return group
    trajectories = group.trajectories
    verdicts = [sample.verdict for sample in group.samples if sample.verdict is not None]
    if len(verdicts) < len(trajectories):
        raise ValueError(f"problem {group.problem.problem_id!r} has a sample that is not judged")
    costs = [call_cost.cost(trajectory) for trajectory in trajectories]
    correct_costs = [cost for cost, verdict in zip(costs, verdicts, strict=True) if verdict]
    history = store.update(group.problem.problem_id, correct_costs)
    scores = scores_of(reward_fn, trajectories, verdicts, costs, history)
    samples = tuple(
        dataclasses.replace(sample, score=score)
        for sample, score in zip(group.samples, scores, strict=True)
    )
    return dataclasses.replace(group, samples=samples)
