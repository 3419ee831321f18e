"""Rewards called as a run calls them."""

from collections.abc import Sequence

from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.budgets import Budget, with_budget
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rewards.fewest_calls import CallHistory

BUDGET = Budget(max_response_tokens=200, max_tool_calls=3)


def score(
    reward: RewardFn,
    group: Sequence[Trajectory],
    is_correct: Sequence[bool],
    history: CallHistory,
    call_cost: CallCost | None = None,
) -> list[Score]:
    """Scores of one group by `reward` in a run of 200 tokens and 3 calls; costs are calls."""
    costs = [(call_cost or CallCost()).cost(t) for t in group]
    return with_budget(reward, BUDGET)(
        group, [Verdict.plain(c, "a test") for c in is_correct], costs, history
    )
