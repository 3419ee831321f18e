"""All figures of the answers of one policy under one condition, each with its interval.

The equations are in `jaxtool.rollout.answer_equations`, the intervals in `answer_intervals`; both are taken from here
by what reads work directories. Not covered: tables and pages, differences between two policies.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.judges.same_answer import Same
from jaxtool.rollout.answer_equations import (
    accuracy,
    check_k,
    lenient_accuracy,
    majority_at,
    majority_at_k,
    majority_values,
    mean_score,
    pass_at,
    pass_at_k,
    pass_values,
    productivity,
    tool_calls,
    tool_productivity,
    tool_productivity_of_right,
    usual_ks,
)
from jaxtool.rollout.answer_intervals import Column, Figure, interval, over_questions, resample
from jaxtool.rollout.answer_table import AnswerTable, check_rests_on_enough, rests_on, table_of

__all__ = [
    "AnswerFigures",
    "AnswerTable",
    "Figure",
    "accuracy",
    "check_rests_on_enough",
    "figures_of",
    "majority_at",
    "majority_at_k",
    "mean_score",
    "pass_at",
    "pass_at_k",
    "productivity",
    "rests_on",
    "table_of",
    "tool_calls",
    "tool_productivity",
    "tool_productivity_of_right",
]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFigures:
    """All figures of one policy under one condition; `None` where a figure has no value."""

    questions: int
    samples: int  # that were asked of each question
    answers: int
    lost: int
    accuracy: Figure  # avg@k
    accuracy_of_these: Figure  # the same with the interval of these questions asked again
    score: Figure
    accuracy_lenient: float | None
    pass_at: dict[int, Figure]
    majority_at: dict[int, Figure]
    tool_calls: Figure  # TC
    tool_productivity: Figure | None  # TP, over all calls
    tool_productivity_of_right: Figure | None  # over calls of right answers alone
    policy_tokens: Figure  # an answer
    tool_tokens: Figure  # an answer


def figures_of(
    table: AnswerTable, same: Same, *, ks: Sequence[int] | None = None, seed: int = 0
) -> AnswerFigures:
    """Every figure with its interval.

    Args:
      same: the judge's notion of equal answers (`same_answer.same_by`).
      ks: of pass@k and maj@k; None: 1, 2, 4, ... up to the samples.
      seed: of the intervals.

    Raises:
      ValueError: a k is larger than the samples, or nothing came back.
    """
    ks = usual_ks(table.samples) if ks is None else tuple(ks)
    for k in ks:
        check_k(k, table.samples)
    ks = tuple(k for k in ks if np.any(table.present >= k))
    both = resample(table, seed=seed)
    these = resample(table, questions=False, seed=seed)

    def per_answer(name: Column, total: float) -> Figure:
        return interval(total / table.answers, both.sums(name) / both.sums("answers"), both.over)

    def per_call(name: Column, value: float | None) -> Figure | None:
        if value is None:
            return None
        calls, right = both.sums(name), both.sums("correct")
        # A replicate without calls has no productivity.
        ratios = np.divide(right, calls, out=np.full_like(right, np.nan), where=calls > 0)
        return interval(value, ratios, both.over)

    whole = accuracy(table)
    return AnswerFigures(
        questions=int(np.count_nonzero(table.present)),
        samples=table.samples,
        answers=table.answers,
        lost=table.num_lost,
        accuracy=interval(whole, both.means("correct"), both.over),
        accuracy_of_these=interval(whole, these.means("correct"), these.over),
        score=interval(mean_score(table), both.means("score"), both.over),
        accuracy_lenient=lenient_accuracy(table),
        pass_at={k: over_questions(pass_values(table, k), seed) for k in ks},
        majority_at={k: over_questions(majority_values(table, k, same), seed) for k in ks},
        tool_calls=per_answer("calls", float(table.calls.sum())),
        tool_productivity=per_call("calls", tool_productivity(table)),
        tool_productivity_of_right=per_call("calls_of_right", tool_productivity_of_right(table)),
        policy_tokens=per_answer("policy_tokens", float(table.policy_tokens.sum())),
        tool_tokens=per_answer("tool_tokens", float(table.tool_tokens.sum())),
    )
