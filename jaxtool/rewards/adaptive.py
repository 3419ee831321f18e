"""Rewards that save calls only where that is safe: by difficulty (AdaTIR) and by bounded shaping (ASPO).

Not covered: the bounds of the shaping, which the learner applies (`algos.advantages.shaped_advantages`).
"""

import dataclasses
import math
from collections.abc import Sequence

from jaxtool.core.ranges import check_range
from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.rewards.base import known, solve_rate
from jaxtool.rewards.fewest_calls import CallHistory, FewestCalls, GlobalMinimum


def adatir_penalty(m: float, max_calls: float, *, weight: float) -> float:
    """-λ sin(π/2 ⋅ min(m / N_max, 1)): AdaTIR (2601.14696), efficiency reward of easy problems.

    Args:
      m: calls.
      max_calls: N_max, the tool limit.
      weight: λ.
    """
    return -weight * math.sin(math.pi / 2 * min(m / max_calls, 1.0))


def call_shaping(m: float, n: float, c: float, *, delta: float) -> float:
    """δ (m - n) / c with δ < 0: ASPO (2508.19201) with calls beyond n in place of the first call's position."""
    return delta * (m - n) / c


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaTirReward:
    """Outcome plus AdaTIR's penalty for correct answers of easy problems, φ = 1 - solve rate < φ_low."""

    correct: float = 1.0
    wrong: float = 0.0
    weight: float = 0.5  # λ; the paper's value is not known to us
    max_calls: float | None = None  # N_max; None: the run's max_tool_calls
    max_difficulty: float = 0.5  # φ_low: harder groups are not asked to save calls

    def __post_init__(self) -> None:
        check_range(self, "correct", "wrong")
        check_range(self, "weight", least=0)
        check_range(self, "max_calls", above=0)
        check_range(self, "max_difficulty", least=0, most=1)

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        max_calls = known(self.max_calls, "AdaTirReward.max_calls")
        is_easy = 1.0 - solve_rate(verdicts) < self.max_difficulty
        scores = []
        for right, cost in zip(verdicts, costs, strict=True):
            reward = self.correct if right else self.wrong
            if right and is_easy:
                reward += adatir_penalty(cost, max_calls, weight=self.weight)
            scores.append(Score(reward=reward, is_correct=right.is_correct))
        return scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class CallShapingReward:
    """Outcome alone as reward; superfluous calls shape the advantage of correct answers, within bounds.

    GrpoConfig.shaping (ClippedShaping) holds the bounds. A correct answer never becomes worse
    than a wrong one, whatever the group's standard deviation does.
    """

    correct: float = 1.0
    wrong: float = -1.0
    delta: float = -2.0  # paper: -2 and -2.5
    c: float | None = None  # calls that cost δ; None: the run's max_tool_calls
    estimator: FewestCalls = dataclasses.field(default_factory=GlobalMinimum)  # of n
    min_solve_rate: float = 0.0  # groups with a smaller share of correct answers are not shaped

    def __post_init__(self) -> None:
        check_range(self, "correct", "wrong")
        check_range(self, "delta", most=0)
        check_range(self, "c", above=0)
        check_range(self, "min_solve_rate", least=0)  # above 1: never

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        c = known(self.c, "CallShapingReward.c")
        n = self.estimator(history)
        is_shaped = solve_rate(verdicts) >= self.min_solve_rate
        scores = []
        for right, cost in zip(verdicts, costs, strict=True):
            shaping = 0.0
            if right and is_shaped and n is not None:
                shaping = call_shaping(max(cost, n), n, c, delta=self.delta)
            reward = self.correct if right else self.wrong
            scores.append(
                Score(reward=reward, is_correct=right.is_correct, fewest_calls=n, shaping=shaping)
            )
        return scores
