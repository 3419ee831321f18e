"""Offloading: calls on questions that the policy answers without the tool. Found by probing it without one.

Each question q is answered without tools, which gives its solve rate p(q), and with tools, which gives its calls an
answer c(q), the share r(q) of answers with a call, and the accuracy a(q). OTC-PO (2504.14870, section 1) names the effect
cognitive offloading and has no measure of it; these are ours. Every question counts as 1. Intervals are over questions.

  curve          c, r and a over p, in bins: calls should fall to 0 where p is near 1
  needless       Σ_q c(q) [p(q) >= threshold] / Σ_q c(q)     share of calls on questions that are solved without
  offloaded      Σ_q c(q) p(q) / Σ_q c(q)                    share of calls whose answer would be right without
  auc            P(p of an answer without a call > p of one with a call) + ½ P(equal): 1 is calls where they are needed
                 and nowhere else, ½ is calls without regard to need
  gap            Σ_b (n_b / n) |r_b - (1 - p_b)| over the bins b: how far calls are from need; 0 where as many answers
                 call as would be wrong without

p is an estimate: with k answers a question it has k + 1 values. `offloaded` is linear in p, so its expectation does
not depend on k. `needless`, the bins and `gap` do: chance puts questions in bins, more so with few answers.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.behaviour.answers import judged, share
from jaxtool.behaviour.bootstrap import Interval, interval, ratio_interval
from jaxtool.rundir.answer_records import AnswerRecord

THRESHOLD = (
    0.95  # a call at a solve rate of 0.8 may still win 20 points; above 0.95 there is little to win
)
EDGES = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # of the bins; the last one holds its upper end


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """One question under both conditions."""

    problem_id: str
    solve_rate: float  # p: right answers without tools / answers without
    calls: float  # c: calls / answers with tools
    call_rate: float  # r: answers with a call / answers with tools
    accuracy: float  # a: right answers with tools / answers with


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bin:
    """Questions whose solve rate without tools lies in [low, high), in the last bin also at `high`."""

    low: float
    high: float
    questions: int
    solve_rate: float  # means over the questions
    calls: float
    calls_interval: Interval | None
    call_rate: float
    call_rate_interval: Interval | None
    accuracy: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Offloading:
    """Figures None where nothing is called, or (auc) where all or no answers call."""

    questions: int  # answered under both conditions
    left_out: int  # asked under one of them only, or lost
    answers_without: int  # on which the solve rates rest
    threshold: float
    curve: tuple[Bin, ...]  # bins with a question
    needless: float | None
    needless_interval: Interval | None
    offloaded: float | None
    offloaded_interval: Interval | None
    auc: float | None
    auc_interval: Interval | None
    gap: float


def offloading(
    with_tools: Sequence[AnswerRecord],
    without: Sequence[AnswerRecord],
    *,
    threshold: float = THRESHOLD,
) -> Offloading | None:
    """See above; None where the two have no question in common.

    Args:
      with_tools: answers of a policy.
      without: answers of the same policy without any tools.
      threshold: solve rate from which on a question counts as solved.

    Raises:
      ValueError: an answer is on the wrong side.
    """
    found = questions(with_tools, without)
    if not found:
        return None
    p = np.array([question.solve_rate for question in found])
    c = np.array([question.calls for question in found])
    r = np.array([question.call_rate for question in found])
    solved = c * (p >= threshold)
    asked = {record.problem_id for record in (*with_tools, *without)}
    both = {question.problem_id for question in found}
    return Offloading(
        questions=len(found),
        left_out=len(asked) - len(found),
        answers_without=len([x for x in judged(without) if x.problem_id in both]),
        threshold=threshold,
        curve=curve(found),
        needless=share(float(solved.sum()), float(c.sum())),
        needless_interval=ratio_interval(list(solved), list(c)),
        offloaded=share(float((c * p).sum()), float(c.sum())),
        offloaded_interval=ratio_interval(list(c * p), list(c)),
        auc=auc(p, r),
        auc_interval=interval(len(found), lambda chosen: auc(p[chosen], r[chosen])),
        gap=gap(found),
    )


def questions(
    with_tools: Sequence[AnswerRecord], without: Sequence[AnswerRecord]
) -> list[Question]:
    """The questions that both sides answered, in the order of `with_tools`."""
    if any(not record.has_tools for record in with_tools) or any(r.has_tools for r in without):
        raise ValueError("offloading compares answers with tools with answers without any")
    probed, asked = _by_question(without), _by_question(with_tools)
    return [
        Question(
            problem_id=problem_id,
            solve_rate=_mean([record.is_correct for record in probed[problem_id]]),
            calls=_mean([record.num_calls for record in records]),
            call_rate=_mean([record.num_calls > 0 for record in records]),
            accuracy=_mean([record.is_correct for record in records]),
        )
        for problem_id, records in asked.items()
        if problem_id in probed
    ]


def curve(found: Sequence[Question]) -> tuple[Bin, ...]:
    """The bins of `EDGES` that hold a question."""
    return tuple(_bin(low, high, part) for low, high, part in _binned(found) if part)


def auc(solve_rates: np.ndarray, call_rates: np.ndarray) -> float | None:
    """Σ_ij (1 - r_i) r_j ([p_i > p_j] + ½ [p_i = p_j]) / Σ_ij (1 - r_i) r_j; Mann and Whitney 1947, weighted.

    p 1, 0 and r 0, 1 give 1. None where all answers call, or none does.

    Args:
      solve_rates: p [questions].
      call_rates: r [questions].
    """
    silent, calling = float((1 - call_rates).sum()), float(call_rates.sum())
    if not silent * calling:
        return None
    values, where = np.unique(solve_rates, return_inverse=True)
    without = np.bincount(where, 1 - call_rates, len(values))
    having = np.bincount(where, call_rates, len(values))
    below = np.cumsum(having) - having  # calls at smaller solve rates
    return float((without * (below + having / 2)).sum() / (silent * calling))


def gap(found: Sequence[Question]) -> float:
    """Σ_b (n_b / n) |r_b - (1 - p_b)|, as the expected calibration error (1706.04599, equation 3)."""
    return sum(
        len(part) / len(found) * abs(_mean([q.call_rate + q.solve_rate for q in part]) - 1)
        for _, _, part in _binned(found)
        if part
    )


def _binned(found: Sequence[Question]) -> list[tuple[float, float, list[Question]]]:
    parts: list[list[Question]] = [[] for _ in EDGES[1:]]
    for question in found:
        at = int(np.searchsorted(EDGES, question.solve_rate, side="right")) - 1
        parts[min(at, len(parts) - 1)].append(question)
    return list(zip(EDGES[:-1], EDGES[1:], parts, strict=True))


def _bin(low: float, high: float, part: Sequence[Question]) -> Bin:
    ones = [1.0] * len(part)
    calls, rates = [q.calls for q in part], [q.call_rate for q in part]
    return Bin(
        low=low,
        high=high,
        questions=len(part),
        solve_rate=_mean([q.solve_rate for q in part]),
        calls=_mean(calls),
        calls_interval=ratio_interval(calls, ones),
        call_rate=_mean(rates),
        call_rate_interval=ratio_interval(rates, ones),
        accuracy=_mean([q.accuracy for q in part]),
    )


def _by_question(records: Sequence[AnswerRecord]) -> dict[str, list[AnswerRecord]]:
    found: dict[str, list[AnswerRecord]] = {}
    for record in judged(records):
        found.setdefault(record.problem_id, []).append(record)
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
