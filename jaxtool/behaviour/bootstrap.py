"""Intervals of figures over questions: questions are drawn again with all their answers (cluster bootstrap).

Percentiles of the redrawn figures (Efron and Tibshirani 1993, section 13.3). Answers to one question are not
independent, so whole questions are drawn. The draws have a fixed seed: equal answers give equal intervals.
"""

from collections.abc import Callable, Sequence

import numpy as np

DRAWS = 1000
LEVEL = 0.95

Interval = tuple[float, float]


def interval(
    questions: int, figure: Callable[[np.ndarray], float | None], *, seed: int = 0
) -> Interval | None:
    """The middle 95 % of `figure(indices)` over redrawn questions; None with fewer than two questions.

    Args:
      questions: how many there are.
      figure: of the questions with these indices [questions], some of them several times; None: undefined there,
        such draws are left out.
    """
    if questions < 2:
        return None
    draw = np.random.default_rng(seed)
    drawn = [figure(draw.integers(questions, size=questions)) for _ in range(DRAWS)]
    known = [value for value in drawn if value is not None]
    if not known:
        return None
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def ratio_interval(
    numerators: Sequence[float], denominators: Sequence[float], *, seed: int = 0
) -> Interval | None:
    """Of Σ numerators / Σ denominators, one of each a question."""
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)

    def figure(chosen: np.ndarray) -> float | None:
        whole = float(bottom[chosen].sum())
        return float(top[chosen].sum()) / whole if whole else None

    return interval(len(top), figure, seed=seed)
