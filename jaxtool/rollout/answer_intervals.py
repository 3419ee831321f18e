"""Intervals of figures of answers by the two-level bootstrap, and what they are over.

Vectorised, and the same for the same seed. Not covered: intervals over runs of several seeds, which are t-intervals
(`jaxtool.study.intervals`).
"""

import dataclasses
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float

from jaxtool.rollout.answer_table import AnswerTable

REPLICATES = 1000
_BLOCK = 1 << 22  # numbers of the replicates that are made at once
_ALPHA = 0.05


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A number, its interval of 95 %, and what the interval is over: what would be drawn anew."""

    value: float
    low: float
    high: float
    over: str  # "questions and samples", "questions", "samples", "seeds"


Column = Literal[
    "answers", "correct", "score", "calls", "calls_of_right", "policy_tokens", "tool_tokens"
]
_COLUMNS: tuple[Column, ...] = get_args(Column)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resampled:
    """Replicates of a table, from which every interval is taken. R replicates, C columns of answers."""

    mean_columns: Float[np.ndarray, "R C"]  # mean over questions of the mean over their answers
    sum_columns: Float[np.ndarray, "R C"]  # over all answers
    over: str

    def means(self, column: Column) -> Float[np.ndarray, " R"]:
        return self.mean_columns[:, _COLUMNS.index(column)]

    def sums(self, column: Column) -> Float[np.ndarray, " R"]:
        return self.sum_columns[:, _COLUMNS.index(column)]


def resample(
    table: AnswerTable,
    *,
    questions: bool = True,
    samples: bool = True,
    seed: int = 0,
    replicates: int = REPLICATES,
) -> Resampled:
    """Replicates of a table by the two-level bootstrap: questions are drawn with putting back, then of each its answers.

    Both levels: what other questions of the same kind and other random draws would give. With `questions=False` the
    questions stay: what asking the same ones again would give. Both levels are a little too wide (Davison and
    Hinkley 1997, section 3.8): the spread of a question's answers counts up to twice, 1 / k of their variance.

    Args:
      questions: whether questions are drawn.
      samples: whether the answers of a question are drawn.
      seed: of the draws; the same table and seed give the same numbers.
    """
    used = np.flatnonzero(table.present)
    if not used.size:
        raise ValueError("no answer came back: there is nothing to report")
    present = table.present[used]
    columns = np.stack(
        [
            *(np.ones_like(table.correct), table.correct, table.score, table.calls),
            *(table.calls * table.correct, table.policy_tokens, table.tool_tokens),
        ],
        axis=-1,
    )[used]
    q, width, c = columns.shape
    mask = np.arange(width) < present[:, None]
    columns = columns * mask[:, :, None]
    generator = np.random.default_rng([seed, int(questions), int(samples)])
    means, sums = np.empty((replicates, c)), np.empty((replicates, c))
    block = max(1, _BLOCK // (q * width * c))
    for start in range(0, replicates, block):
        rows = slice(start, min(start + block, replicates))
        size = rows.stop - start
        drawn = (
            generator.integers(q, size=(size, q)) if questions else np.tile(np.arange(q), (size, 1))
        )
        if samples:
            # An index below the answers of the question; places behind those stay out by the mask.
            index = (generator.random((size, q, width)) * present[drawn][:, :, None]).astype(int)
            values = columns[drawn[:, :, None], index] * mask[drawn][:, :, :, None]
            totals = values.sum(2)
        else:
            totals = columns.sum(1)[drawn]
        means[rows] = (totals / present[drawn][:, :, None]).mean(1)
        sums[rows] = totals.sum(1)
    names = {
        (True, True): "questions and samples",
        (True, False): "questions",
        (False, True): "samples",
    }
    return Resampled(mean_columns=means, sum_columns=sums, over=names[questions, samples])


def interval(value: float, replicates: Float[np.ndarray, " R"], over: str) -> Figure:
    """A figure with the percentile interval of its replicates; those without a value (NaN) are left out."""
    low, high = np.nanquantile(replicates, [_ALPHA / 2, 1 - _ALPHA / 2])
    return Figure(value=value, low=float(low), high=float(high), over=over)


def over_questions(values: np.ndarray, seed: int) -> Figure:
    """Mean of the questions that have a value, its interval over questions alone."""
    known = values[np.isfinite(values)]
    generator = np.random.default_rng([seed, 2])
    means = np.empty(REPLICATES)
    block = max(1, _BLOCK // known.size)
    for start in range(0, REPLICATES, block):
        size = min(block, REPLICATES - start)
        means[start : start + size] = known[
            generator.integers(known.size, size=(size, known.size))
        ].mean(1)
    return interval(float(known.mean()), means, "questions")
