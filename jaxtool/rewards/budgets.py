"""Budgets of a run that its rewards read: None in a reward stands for the run's own number.

Covered: c of OTC and of call shaping, N_max of AdaTIR, L of the terms by length. c is a scale, so another
one than the run's limit of calls is a choice. N_max and L are the run's limits: another number is refused.
Not covered: rewards from outside this package, which state their own numbers.
"""

import dataclasses

from jaxtool.rewards.adaptive import AdaTirReward, CallShapingReward
from jaxtool.rewards.base import RewardFn
from jaxtool.rewards.outcome import OtcGrpoReward, OtcPpoReward
from jaxtool.rewards.terms import (
    LengthPenalty,
    OverlongPunishment,
    RewardTerm,
    RewardTerms,
    SumReward,
)

# DAPO (2503.14476): the soft zone is a fifth of the budget, 4096 of 20480 tokens.
CACHE_PARTS = 5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a response may use up at most."""

    max_response_tokens: int
    max_tool_calls: int


def with_budget(reward: RewardFn, budget: Budget) -> RewardFn:
    """`reward` with the run's numbers where it says None.

    Example: OtcGrpoReward() in a run of 8 calls is OtcGrpoReward(c=8.0).

    Raises:
      ValueError: a number that contradicts the run's, or a reward for saving calls in a run without.
    """
    name = type(reward).__name__
    if isinstance(reward, OtcGrpoReward | OtcPpoReward | CallShapingReward):
        if reward.c is not None:
            return reward
        return dataclasses.replace(reward, c=_calls_to_save(budget, f"{name}.c"))
    if isinstance(reward, AdaTirReward):
        limit = _calls_to_save(budget, f"{name}.max_calls")
        _check_same(f"{name}.max_calls", reward.max_calls, "max_tool_calls", limit)
        return dataclasses.replace(reward, max_calls=limit)
    if isinstance(reward, SumReward):
        return dataclasses.replace(
            reward,
            outcome=with_budget(reward.outcome, budget),
            terms=tuple(term_with_budget(term, budget) for term in reward.terms),
        )
    return reward


def term_with_budget(term: RewardTerm, budget: Budget) -> RewardTerm:
    """`term` with the run's numbers where it says None; raises as `with_budget` does."""
    if not isinstance(term, OverlongPunishment | LengthPenalty):
        return term
    tokens = budget.max_response_tokens
    _check_same(f"{type(term).__name__}.max_tokens", term.max_tokens, "max_response_tokens", tokens)
    if isinstance(term, LengthPenalty):
        return dataclasses.replace(term, max_tokens=tokens)
    cache = term.cache_tokens or max(1, tokens // CACHE_PARTS)
    return dataclasses.replace(term, max_tokens=tokens, cache_tokens=cache)


def summed(outcome: RewardFn, terms: RewardTerms, budget: Budget) -> RewardFn:
    """The reward of a run: its outcome and the terms on top of it, with the run's budgets."""
    added = terms.in_order()
    whole = SumReward(outcome=outcome, terms=added) if added else outcome
    return with_budget(whole, budget)


def _calls_to_save(budget: Budget, name: str) -> float:
    if budget.max_tool_calls < 1:
        raise ValueError(
            f"{name} would be RolloutConfig.max_tool_calls={budget.max_tool_calls}: a run without "
            "calls has none to save; choose another RlConfig.reward"
        )
    return float(budget.max_tool_calls)


def _check_same(name: str, value: float | None, budget_name: str, budget: float) -> None:
    if value is not None and value != budget:
        raise ValueError(
            f"{name}={value} is not the run's RolloutConfig.{budget_name}={budget:g}: leave "
            f"{name} out, and it is the run's"
        )
