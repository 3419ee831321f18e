"""Rewards called as a run calls them."""

from collections.abc import Sequence

from jaxtool.core.types import Score, Trajectory
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.call_cost import Price
from jaxtool.rewards.fewest_calls import CallHistory


def score(
    reward: RewardFn,
    group: Sequence[Trajectory],
    is_correct: Sequence[bool],
    history: CallHistory,
    price: Price | None = None,
) -> list[Score]:
    """Scores of one group by `reward`; costs are calls."""
    costs = [(price or Price()).cost(t) for t in group]
    return reward(group, is_correct, costs, history)
