"""The rewards that a run chooses from: outcome only (ReTool), OTC-GRPO and OTC-PPO.

Covered: base rewards and the tool coefficient. Wrong answers are never scaled, whatever they cost.
Not covered: who is correct (`answers`, `answer_checker`), where n comes from (`n_store`), the
equations (`otc`).
"""

import dataclasses
from collections.abc import Sequence

from jaxtool.core.types import Score, Trajectory
from jaxtool.rewards import otc
from jaxtool.rewards.n_store import CallHistory, FewestCalls, GlobalMinimum


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutcomeReward:
    """r = correct or wrong. Defaults: ReTool (2504.11536), reward design; correct=1, wrong=0: OTC-PO."""

    correct: float = 1.0
    wrong: float = -1.0

    def __post_init__(self) -> None:
        _check_base(self.correct, self.wrong)

    def __call__(
        self, group: Sequence[Trajectory], is_correct: Sequence[bool], history: CallHistory, /
    ) -> list[Score]:
        return [
            Score(reward=self.correct if right else self.wrong, is_correct=right)
            for _, right in zip(group, is_correct, strict=True)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtcGrpoReward:
    """α ⋅ r_tool(m, n, c) ⋅ correct if correct, else wrong. OTC-PO (2504.14870), equations 6 and 7.

    Where n is unknown r_tool is 1. A correct trajectory with m < n (only with an estimator other than
    the minimum) counts as one with n calls; see `otc`.
    """

    alpha: float = 1.0  # paper
    c: float = 3.0  # the tool limit (paper: 3 for code, 4 for search)
    correct: float = 1.0
    wrong: float = 0.0  # paper; -1 is ReTool's
    estimator: FewestCalls = dataclasses.field(default_factory=GlobalMinimum)

    def __post_init__(self) -> None:
        _check_base(self.correct, self.wrong)
        _check_scale(self.alpha, self.c)

    def __call__(
        self, group: Sequence[Trajectory], is_correct: Sequence[bool], history: CallHistory, /
    ) -> list[Score]:
        n = self.estimator(history)
        scores = []
        for trajectory, right in zip(group, is_correct, strict=True):
            coefficient = 1.0
            if right and n is not None:
                coefficient = otc.r_tool_grpo(max(trajectory.num_tool_calls, n), n, self.c)
            base = self.correct if right else self.wrong
            reward = otc.scaled_reward(base, coefficient, alpha=self.alpha)
            scores.append(
                Score(reward=reward, is_correct=right, tool_coefficient=coefficient, fewest_calls=n)
            )
        return scores


@dataclasses.dataclass(frozen=True, kw_only=True)
class OtcPpoReward:
    """α ⋅ r_tool(m, c) ⋅ correct if correct, else wrong. OTC-PO (2504.14870), equations 5 and 7."""

    alpha: float = 1.0  # paper
    c: float = 3.0  # the tool limit (paper: 3 for code, 4 for search)
    correct: float = 1.0
    wrong: float = 0.0  # paper; -1 is ReTool's

    def __post_init__(self) -> None:
        _check_base(self.correct, self.wrong)
        _check_scale(self.alpha, self.c)

    def __call__(
        self, group: Sequence[Trajectory], is_correct: Sequence[bool], history: CallHistory, /
    ) -> list[Score]:
        scores = []
        for trajectory, right in zip(group, is_correct, strict=True):
            coefficient = otc.r_tool_ppo(trajectory.num_tool_calls, self.c) if right else 1.0
            base = self.correct if right else self.wrong
            reward = otc.scaled_reward(base, coefficient, alpha=self.alpha)
            scores.append(Score(reward=reward, is_correct=right, tool_coefficient=coefficient))
        return scores


def _check_base(correct: float, wrong: float) -> None:
    if not (correct > 0 >= wrong):
        raise ValueError(f"need correct > 0 >= wrong: {correct=} {wrong=}")


def _check_scale(alpha: float, c: float) -> None:
    if not (alpha > 0 and c > 0):
        raise ValueError(f"need alpha > 0 and c > 0: {alpha=} {c=}")
