"""Rewards that compete with OTC or help it: terms that are added to the outcome's reward.

Covered: overlong punishment, tool bonus, turn penalty, length penalty, a place for each of them, and
the sum. Not covered: rewards of the outcome (`outcome`, `adaptive`), the run's budgets (`budgets`).
"""

import dataclasses
from collections.abc import Sequence
from typing import Protocol

from jaxtool.config.callables import check_takes
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Origin, Score, Trajectory, Verdict
from jaxtool.rewards.base import ARGUMENTS, RewardFn, known
from jaxtool.rewards.fewest_calls import CallHistory
from jaxtool.rewards.outcome import OutcomeReward


def overlong_punishment(tokens: int, max_tokens: float, cache_tokens: float) -> float:
    """0 up to L - C, (L - C - |y|) / C in between, -1 beyond L. DAPO (2503.14476), equation 13.

    Args:
      tokens: |y|.
      max_tokens: L, the budget of a response.
      cache_tokens: C, the soft zone at its end.
    """
    soft = max_tokens - cache_tokens
    if tokens <= soft:
        return 0.0
    return -1.0 if tokens > max_tokens else (soft - tokens) / cache_tokens


def tool_bonus(m: float, *, per_call: float, limit: float) -> float:
    """min(0.1 m, 0.4) for a wrong answer: public ReTool recipes (verl, slime), which score it
    min(-0.6, -1 + 0.1 m) "to encourage tool calls": the opposite of OTC."""
    return min(per_call * m, limit)


class RewardTerm(Protocol):
    """What is added for one trajectory. Implementations are frozen dataclasses."""

    def __call__(self, trajectory: Trajectory, verdict: Verdict, cost: float, /) -> float: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class OverlongPunishment:
    """DAPO's soft punishment; a response that stops at the budget gets all of it."""

    max_tokens: int | None = None  # L; None: the run's max_response_tokens
    cache_tokens: int | None = None  # C; None: a fifth of L (DAPO)
    counts_tool_tokens: bool = True  # as the budget does; False: tokens that the policy wrote

    def __post_init__(self) -> None:
        for tokens in (self.max_tokens, self.cache_tokens):
            if tokens is not None and tokens < 1:
                raise ValueError(f"need {self.cache_tokens=} > 0 and {self.max_tokens=} > 0")
        if self.max_tokens and self.cache_tokens and self.cache_tokens > self.max_tokens:
            raise ValueError(f"need {self.cache_tokens=} <= {self.max_tokens=}")

    def __call__(self, trajectory: Trajectory, verdict: Verdict, cost: float, /) -> float:
        del verdict, cost
        limit = known(self.max_tokens, "OverlongPunishment.max_tokens")
        cache = known(self.cache_tokens, "OverlongPunishment.cache_tokens")
        tokens = response_tokens(trajectory, counts_tool_tokens=self.counts_tool_tokens)
        return overlong_punishment(tokens, limit, cache)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolBonus:
    """Wrong answers are less bad with calls: the reward of public ReTool recipes. Not the paper's."""

    per_call: float = 0.1
    limit: float = 0.4

    def __post_init__(self) -> None:
        check_range(self, "per_call", "limit", least=0)

    def __call__(self, trajectory: Trajectory, verdict: Verdict, cost: float, /) -> float:
        del trajectory
        return (
            0.0
            if verdict.is_correct
            else tool_bonus(cost, per_call=self.per_call, limit=self.limit)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TurnPenalty:
    """-per_call ⋅ m, right or wrong: the additive cost that OTC-PO found unstable (2504.14870, 4)."""

    per_call: float = 0.1
    only_correct: bool = False

    def __post_init__(self) -> None:
        check_range(self, "per_call", least=0)

    def __call__(self, trajectory: Trajectory, verdict: Verdict, cost: float, /) -> float:
        del trajectory
        return 0.0 if self.only_correct and not verdict.is_correct else -self.per_call * cost


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthPenalty:
    """-at_budget ⋅ |y| / L, |y| the tokens that the policy wrote, L the run's budget of a response.

    The length term of LCPO-Exact (L1, 2503.04697) with target 0, whose α is at_budget / L. In units of
    the budget it means the same in a run of 96 tokens and in one of 16,384.
    """

    at_budget: float = 0.5  # what a response of L tokens loses
    max_tokens: int | None = None  # L; None: the run's max_response_tokens
    only_correct: bool = False

    def __post_init__(self) -> None:
        check_range(self, "at_budget", least=0)
        if self.at_budget < 0 or (self.max_tokens is not None and self.max_tokens < 1):
            raise ValueError(f"need {self.at_budget=} >= 0 and {self.max_tokens=} > 0")

    def __call__(self, trajectory: Trajectory, verdict: Verdict, cost: float, /) -> float:
        del cost
        if self.only_correct and not verdict.is_correct:
            return 0.0
        limit = known(self.max_tokens, "LengthPenalty.max_tokens")
        return -self.at_budget * response_tokens(trajectory, counts_tool_tokens=False) / limit


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardTerms:
    """What a run adds to the reward of the outcome. Each term has its own field, so that an overlay that
    asks for one replaces neither the others nor the outcome's reward."""

    overlong: OverlongPunishment | None = None
    length: LengthPenalty | None = None
    turns: TurnPenalty | None = None
    tool_bonus: ToolBonus | None = None
    own: tuple[RewardTerm, ...] = ()  # of other modules

    def in_order(self) -> tuple[RewardTerm, ...]:
        """Those that are there, in the order in which they are added up."""
        named = (self.overlong, self.length, self.turns, self.tool_bonus)
        return (*(term for term in named if term is not None), *self.own)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SumReward:
    """Base reward plus terms."""

    terms: tuple[RewardTerm, ...]
    outcome: RewardFn = dataclasses.field(default_factory=OutcomeReward)

    def __post_init__(self) -> None:
        check_takes(self.outcome, ARGUMENTS, "SumReward.outcome")
        for term in self.terms:
            check_takes(term, ("trajectory", "verdict", "cost"), "SumReward.terms")

    def __call__(
        self,
        group: Sequence[Trajectory],
        verdicts: Sequence[Verdict],
        costs: Sequence[float],
        history: CallHistory,
        /,
    ) -> list[Score]:
        scores = self.outcome(group, verdicts, costs, history)
        members = zip(scores, group, verdicts, costs, strict=True)
        return [
            dataclasses.replace(
                score, reward=score.reward + sum(term(t, verdict, cost) for term in self.terms)
            )
            for score, t, verdict, cost in members
        ]


def response_tokens(trajectory: Trajectory, *, counts_tool_tokens: bool) -> int:
    """Tokens after the prompt, with or without those that tools wrote."""
    if not counts_tool_tokens:
        return trajectory.num_policy_tokens
    return int((trajectory.origins != Origin.PROMPT).sum())
