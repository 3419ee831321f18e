"""Figures of answers as equations: avg@k, pass@k, maj@k, EM and F1, TC, TP.

Of a question with n answers, c of them right:
  avg@n   c / n; the mean over questions is the accuracy (ReTool's avg@32)
  pass@k  1 - C(n - c, k) / C(n, k)               Chen et al. 2021, 2107.03374, equation 1
  maj@k   see `majority_at`                       self-consistency, Wang et al. 2022, 2203.11171
Over all answers:
  EM, F1  share right, and mean score, of judges of words
  TC      calls that got an observation, an answer          OTC-PO, 2504.14870, section 2.1
  TP      right answers / all calls                         OTC-PO, 2504.14870, section 2.1
  TP of right answers: right answers / calls of right answers, so that calls of wrong ones do not count

Pure functions. Not covered: intervals (`answer_intervals`).
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxtool.judges.same_answer import Same, classes_of
from jaxtool.rollout.answer_table import AnswerTable


def pass_at(answers: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): the chance that k of n answers, drawn without putting back, hold a right one.

    Unbiased for the chance that one of k fresh answers is right. 2107.03374, equation 1.
    """
    check_k(k, answers)
    return 1.0 - math.comb(answers - correct, k) / math.comb(answers, k)


def majority_at(classes: Sequence[int | None], correct: Sequence[float], k: int) -> float:
    """The chance that a vote of k of n answers, drawn without putting back, is right: exact, nothing is sampled.

    The class with the most votes wins; among equals each with the same chance. An answer that says nothing (None)
    takes a place among the k and has no vote; where nobody votes the vote is wrong. A class is right as often as its
    answers are.

    Example: classes 0, 0, 1 of which 0 is right. k = 3: 1. k = 2: of the three pairs (0, 0) is right, and two are
    ties, half right each: 2/3.
    """
    check_k(k, len(classes))
    counts: dict[int, int] = {}
    right: dict[int, float] = {}
    for one, is_right in zip(classes, correct, strict=True):
        if one is not None:
            counts[one] = counts.get(one, 0) + 1
            right[one] = right.get(one, 0.0) + is_right
    silent = len(classes) - sum(counts.values())
    winning = sum(
        right[one] / count * _ways_to_win(count, [counts[o] for o in counts if o != one], silent, k)
        for one, count in counts.items()
        if right[one]
    )
    return winning / math.comb(len(classes), k)


def _ways_to_win(count: int, others: Sequence[int], silent: int, k: int) -> float:
    """Subsets of k in which a class of `count` answers has the most votes; one of t winners counts 1 / t.

    For each number of votes m: the others' subsets with at most m votes each, by how many votes they take (index)
    and how many of them tie at m (row), as products of polynomials.
    """
    total = 0.0
    for m in range(1, min(count, k) + 1):
        left = k - m
        ways = np.zeros((left // m + 1, left + 1))  # [ties, votes]
        ways[0, 0] = 1.0
        for other in others:
            grown = np.zeros_like(ways)
            for i in range(min(m - 1, other, left) + 1):  # i votes, fewer than m
                grown[:, i:] += float(math.comb(other, i)) * ways[:, : left + 1 - i]
            if m <= min(other, left):  # a tie
                grown[1:, m:] += float(math.comb(other, m)) * ways[:-1, : left + 1 - m]
            ways = grown
        by_silent = np.asarray([float(math.comb(silent, left - v)) for v in range(left + 1)])
        shares = 1.0 / np.arange(1, ways.shape[0] + 1)
        total += math.comb(count, m) * float(shares @ (ways @ by_silent))
    return total


def productivity(correct: float, calls: float) -> float | None:
    """TP: right answers over calls (2504.14870, section 2.1); None without calls.

    The one definition. With all calls it is the paper's; with the calls of right answers alone it is "TP of right
    answers". Sums and means give the same.
    """
    return correct / calls if calls else None


def accuracy(table: AnswerTable) -> float:
    """avg@k: the mean over questions of the share of their answers that is right; EM where words are judged."""
    return _mean_over_questions(table, table.correct)


def mean_score(table: AnswerTable) -> float:
    """The same of the judge's scores; F1 where words are judged so."""
    return _mean_over_questions(table, table.score)


def pass_at_k(table: AnswerTable, k: int) -> float:
    """pass@k, the mean over the questions with k answers or more.

    Raises:
      ValueError: fewer answers than k were asked of each question.
    """
    return float(np.mean(pass_values(table, k)[table.present >= k]))


def majority_at_k(table: AnswerTable, k: int, same: Same) -> float:
    """maj@k, the mean over the questions with k answers or more.

    Args:
      same: the judge's notion of equal answers (`same_answer.same_by`).

    Raises:
      ValueError: fewer answers than k were asked of each question.
    """
    return float(np.mean(majority_values(table, k, same)[table.present >= k]))


def tool_calls(table: AnswerTable) -> float:
    """TC: calls that got an observation, an answer; mean over all answers."""
    return float(table.calls.sum()) / _answers(table)


def tool_productivity(table: AnswerTable) -> float | None:
    """TP: right answers over all calls, those of wrong answers too; None without calls."""
    return productivity(float(table.correct.sum()), float(table.calls.sum()))


def tool_productivity_of_right(table: AnswerTable) -> float | None:
    """Right answers over the calls that right answers made; None where they made none."""
    return productivity(float(table.correct.sum()), float((table.calls * table.correct).sum()))


def pass_values(table: AnswerTable, k: int) -> Float[np.ndarray, " Q"]:
    """pass@k of each question; NaN where fewer than k answers came back."""
    check_k(k, table.samples)
    right = np.rint(table.correct.sum(1)).astype(int)
    return np.asarray(
        [
            pass_at(int(n), int(c), k) if n >= k else np.nan
            for n, c in zip(table.present, right, strict=True)
        ]
    )


def majority_values(table: AnswerTable, k: int, same: Same) -> Float[np.ndarray, " Q"]:
    """maj@k of each question; NaN where fewer than k answers came back."""
    check_k(k, table.samples)
    values = [
        majority_at(classes_of(answers, same), correct[: len(answers)].tolist(), k)
        if len(answers) >= k
        else np.nan
        for answers, correct in zip(table.final_answers, table.correct, strict=True)
    ]
    return np.asarray(values)


def usual_ks(samples: int) -> tuple[int, ...]:
    """1, 2, 4, ... up to the samples, which come last."""
    powers = [2**i for i in range(samples.bit_length()) if 2**i < samples]
    return (*powers, samples)


def _mean_over_questions(table: AnswerTable, values: np.ndarray) -> float:
    used = table.present > 0
    _answers(table)
    return float(np.mean(values[used].sum(1) / table.present[used]))


def lenient_accuracy(table: AnswerTable) -> float | None:
    """Share right by the lenient rule, where the judge reports one for every answer."""
    mask = np.arange(table.lenient.shape[1]) < table.present[:, None]
    values = table.lenient[mask]
    return float(np.mean(values)) if values.size and np.isfinite(values).all() else None


def _answers(table: AnswerTable) -> int:
    if not table.answers:
        raise ValueError("no answer came back: there is nothing to report")
    return table.answers


def check_k(k: int, answers: int) -> None:
    if not 1 <= k <= answers:
        raise ValueError(
            f"k={k}: pass@k and maj@k need k from 1 to the {answers} answers of a question; ask for more "
            "(--samples)"
        )
