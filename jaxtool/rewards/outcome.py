"""The rewards that a run chooses from: outcome only (ReTool), OTC-GRPO and OTC-PPO.

Covered: base rewards and the tool coefficient. Wrong answers are never scaled, whatever they cost.
Not covered: who is correct (`jaxtool.judges`), where n comes from (`fewest_calls`), the
equations (`otc`).
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.config.callables import check_takes
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Score, Trajectory, Verdict
from jaxtool.rewards import otc
from jaxtool.rewards.base import known, solve_rate
from jaxtool.rewards.decay import ARGUMENTS, Decay, cosine
from jaxtool.rewards.fewest_calls import CallHistory, FewestCalls, GlobalMinimum


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutcomeReward:
    """r = correct or wrong. Defaults: ReTool (2504.11536), reward design; correct=1, wrong=0: OTC-PO.

    Graded: r = wrong + s ⋅ (correct - wrong) with the judge's score s, such as the F1 of words.
    """

    correct: float = 1.0
    wrong: float = -1.0
    is_graded: bool = False

    def __post_init__(self) -> None:
        check_range(self, "correct", "wrong")
        _check_base(self.correct, self.wrong)

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        return [
            Score(reward=self._reward(verdict), is_correct=verdict.is_correct)
            for verdict in verdicts
        ]

    def _reward(self, verdict: Verdict) -> float:
        if self.is_graded:
            return self.wrong + verdict.score * (self.correct - self.wrong)
        return self.correct if verdict.is_correct else self.wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtcGrpoReward:
    """α ⋅ r_tool(m, n, c) ⋅ correct if correct, else wrong. OTC-PO (2504.14870), equations 6 and 7.

    Where n is unknown r_tool is 1. A correct trajectory with m < n (only with an estimator other than
    the minimum) counts as one with n calls; see `otc`. Other decays than the cosine fall with m - n.
    """

    alpha: float = 1.0  # paper
    c: float | None = (
        None  # None: the run's max_tool_calls, as in the paper (3 for code, 4 for search)
    )
    correct: float = 1.0
    wrong: float = 0.0  # paper; -1 is ReTool's
    estimator: FewestCalls = dataclasses.field(default_factory=GlobalMinimum)
    decay: Decay = dataclasses.field(default=cosine)  # paper: equation 6, with its sine around n
    min_solve_rate: float = (
        0.0  # groups with a smaller share of correct answers need not save calls
    )

    def __post_init__(self) -> None:
        check_range(self, "correct", "wrong")
        check_range(self, "alpha", "c", above=0)
        check_range(self, "min_solve_rate", least=0)  # above 1: never
        _check_base(self.correct, self.wrong)
        check_takes(self.decay, ARGUMENTS, "OtcGrpoReward.decay")

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        n = self.estimator(history)
        is_scaled = solve_rate(verdicts) >= self.min_solve_rate
        scores = []
        for right, cost in zip(verdicts, costs, strict=True):
            coefficient = 1.0
            if right and is_scaled and n is not None:
                coefficient = self.decay(max(cost, n), n, known(self.c, "OtcGrpoReward.c"))
            base = self.correct if right else self.wrong
            reward = otc.scaled_reward(base, coefficient, alpha=self.alpha)
            scores.append(
                Score(
                    reward=reward,
                    is_correct=right.is_correct,
                    tool_coefficient=coefficient,
                    fewest_calls=n,
                )
            )
        return scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtcPpoReward:
    """α ⋅ r_tool(m, c) ⋅ correct if correct, else wrong. OTC-PO (2504.14870), equations 5 and 7."""

    alpha: float = 1.0  # paper
    c: float | None = (
        None  # None: the run's max_tool_calls, as in the paper (3 for code, 4 for search)
    )
    correct: float = 1.0
    wrong: float = 0.0  # paper; -1 is ReTool's
    decay: Decay = dataclasses.field(default=cosine)  # paper: equation 5; n is 0

    def __post_init__(self) -> None:
        check_range(self, "correct", "wrong")
        check_range(self, "alpha", "c", above=0)
        _check_base(self.correct, self.wrong)
        check_takes(self.decay, ARGUMENTS, "OtcPpoReward.decay")

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        c = known(self.c, "OtcPpoReward.c")
        scores = []
        for right, cost in zip(verdicts, costs, strict=True):
            coefficient = self.decay(cost, 0.0, c) if right else 1.0
            base = self.correct if right else self.wrong
            reward = otc.scaled_reward(base, coefficient, alpha=self.alpha)
            scores.append(
                Score(reward=reward, is_correct=right.is_correct, tool_coefficient=coefficient)
            )
        return scores


def _check_base(correct: float, wrong: float) -> None:
    if not (correct > 0 >= wrong):
        raise ValueError(f"need correct > 0 >= wrong: {correct=} {wrong=}")
