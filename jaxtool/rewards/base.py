"""What a reward is: a pure function of a finished group, its verdicts and its problem's history.

A reward of the researcher's own is a function, or a frozen dataclass with `__call__`, in any module that
can be imported, and a gin file binds it: `RlConfig.reward = @my_rewards.f`. `scores_of` checks what it
returns, so that a mistake names the function and not the place where its numbers are used.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol

from jaxtool.config.callables import callable_name
from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.rewards.fewest_calls import CallHistory

ARGUMENTS = ("group", "verdicts", "costs", "history")


class RewardFn(Protocol):
    """Scores the members of one group. Implementations are functions or frozen dataclasses."""

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        """One score a member, in order.

        Args:
          group: trajectories of one problem, none of them masked.
          verdicts: what the judge says of each member; one that is right is true, as a bool would be.
          costs: m of each member by the run's `CallCost`: its number of calls, where nothing else is said.
          history: of the problem, with the calls of this group's correct members already in it.
        """
        ...


def known(value: float | None, name: str) -> float:
    """A number that may stand for the run's budget, once it is filled in.

    Raises:
      ValueError: it is None still; `budgets.with_budget` fills it in.
    """
    if value is None:
        raise ValueError(f"{name} is None, the run's budget: give it, or call with_budget first")
    return value


def solve_rate(verdicts: Sequence[Verdict]) -> float:
    """Share of a group's members that are right."""
    return sum(verdict.is_correct for verdict in verdicts) / len(verdicts)


def scores_of(
    reward: RewardFn,
    group: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    costs: Sequence[float],
    history: CallHistory,
) -> list[Score]:
    """What `reward` gives for a group, checked.

    Args:
      reward: the run's, or a researcher's own.
      group: trajectories of one problem, none of them masked.
      verdicts: what the judge says of each member.
      costs: m of each member.
      history: of the problem, with this group's correct members in it.

    Raises:
      ValueError: not one `Score` a member, or one that is not finite; the message names the function.
    """
    scores = reward(group, verdicts, costs, history)
    name = f"RlConfig.reward={callable_name(reward)}"
    if not isinstance(scores, list | tuple) or not all(isinstance(s, Score) for s in scores):
        raise ValueError(
            f"{name} gave {_short(scores)}; return a list of "
            "jaxtool.core.types.Score(reward=..., is_correct=...), one a member of the group"
        )
    if len(scores) != len(group):
        raise ValueError(
            f"{name} gave {len(scores)} scores for a group of {len(group)}; return one a member"
        )
    for member, score in enumerate(scores):
        if not math.isfinite(score.reward) or not math.isfinite(score.shaping):
            raise ValueError(
                f"{name} gave reward={score.reward}, shaping={score.shaping} for member {member} "
                f"(correct: {verdicts[member].is_correct}, cost {costs[member]}); return finite numbers"
            )
    # A verdict in place of a bool is the same thing said at length.
    return [dataclasses.replace(score, is_correct=bool(score.is_correct)) for score in scores]


def _short(value: object) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
