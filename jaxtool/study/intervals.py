"""t-intervals, tests and Holm's correction for figures over seeds. Pure functions.

Seeds are the units: a figure of one seed is one draw, whatever number of questions it rests on. The t
distribution allows for how few they are, as one standard error does not: with 3 seeds the interval of 95 % is
4.3 standard errors to each side, with 7 it is 2.4.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

from scipy.special import stdtr, stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """Mean of some seeds, and the ends of its t-interval."""

    mean: float
    low: float
    high: float

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


def t_interval(values: Sequence[float], level: float = 0.95) -> Interval:
    """mean ± t(n - 1) s / √n. Example: 1, 2, 3 give 2 ± 4.303 · 1 / √3 = -0.48..4.48."""
    mean, error = _mean_and_error(values)
    half = float(stdtrit(len(values) - 1, (1 + level) / 2)) * error
    return Interval(mean=mean, low=mean - half, high=mean + half)


def p_value(values: Sequence[float]) -> float:
    """Of the two-sided t-test that the mean is 0; 1 where all are 0."""
    mean, error = _mean_and_error(values)
    if error == 0:
        return 1.0 if mean == 0 else 0.0
    return 2 * float(stdtr(len(values) - 1, -abs(mean) / error))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """p-values corrected for how many tests there are, in ascending order (Holm 1979).

    The smallest of m is multiplied by m, the next by m - 1, ...; none is smaller than one before it.
    """
    corrected, largest = {}, 0.0
    for rank, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        largest = max(largest, min(1.0, p * (len(p_values) - rank)))
        corrected[name] = largest
    return corrected


def _mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """(mean, s / √n).

    Raises:
      ValueError: there is one value only, whose spread nobody knows.
    """
    if len(values) < 2:
        raise ValueError(f"an interval needs at least 2 seeds, got {len(values)}")
    mean = sum(values) / len(values)
    squares = sum((value - mean) ** 2 for value in values)
    return mean, math.sqrt(squares / (len(values) - 1) / len(values))
