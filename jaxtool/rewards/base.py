"""What a reward is: a pure function of a finished group, its correctness and its problem's history."""

from collections.abc import Sequence
from typing import Protocol

from jaxtool.core.types import Score, Trajectory
from jaxtool.rewards.fewest_calls import CallHistory


class RewardFn(Protocol):
    """Scores the members of one group. Implementations are frozen dataclasses, so gin can build them."""

    def __call__(
        self,
        group: Sequence[Trajectory],
        is_correct: Sequence[bool],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        """One score a member, in order.

        Args:
          group: trajectories of one problem, none of them masked.
          is_correct: whether each member's answer is equivalent to the reference.
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
