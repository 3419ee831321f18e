"""How long answers are: the spread that a plan assumes, and what follows from it in closed form.

An answer's length is log-normal and cut at the limit: X = min(limit, exp(μ + σ z)). A share of the variance
of z is the problem's, for the samples of a hard problem are all long. Not covered: how long tools take.
"""

import dataclasses
import math
import random
from collections.abc import Callable
from statistics import NormalDist
from typing import Literal

_NORMAL = NormalDist()
_STEPS = 400  # of a trapezoid rule from -8 to 8 standard deviations


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Moments of the lengths of answers, in tokens and squares of tokens."""

    mean: float
    problem_variance: float  # of the means of problems
    sample_variance: float  # of the samples of one problem, its mean over problems

    @property
    def square(self) -> float:
        """The mean of the squares."""
        return self.mean**2 + self.problem_variance + self.sample_variance


def lengths_of(mean: float, limit: float, *, spread: float, problem_share: float) -> Lengths:
    """Lengths with this mean after the cut.

    Args:
      spread: σ, the standard deviation of log-lengths before the cut; 0: all answers are equal.
      problem_share: of σ²: the problem's part.
    """
    if spread <= 0 or mean >= limit:
        return Lengths(mean=mean, problem_variance=0.0, sample_variance=0.0)
    own = spread * math.sqrt(1 - problem_share)
    between = spread * math.sqrt(problem_share)
    low = _mu(mean, limit, spread)

    def over_problems(moment: Callable[[float, float], float]) -> float:
        return _expected(lambda z: moment(*_cut(low + between * z, own, limit)))

    return Lengths(
        mean=mean,
        problem_variance=over_problems(lambda first, second: first**2) - mean**2,
        sample_variance=over_problems(lambda first, second: second - first**2),
    )


def draw_lengths(
    mean: float,
    limit: int,
    *,
    spread: float,
    problem_share: float,
    problems: int,
    samples: int,
    seed: int = 0,
) -> list[int]:
    """Lengths of a host's answers, problem by problem, as `lengths_of` describes them."""
    if spread <= 0 or mean >= limit:
        return [max(1, min(limit, round(mean)))] * (problems * samples)
    numbers, mu = random.Random(seed), _mu(mean, limit, spread)
    own, between = spread * math.sqrt(1 - problem_share), spread * math.sqrt(problem_share)
    drawn = []
    for _ in range(problems):
        of_problem = mu + between * numbers.gauss()
        drawn += [of_problem + own * numbers.gauss() for _ in range(samples)]
    return [max(1, min(limit, round(math.exp(x)))) for x in drawn]


def live_tokens(lengths: Lengths, prompt_tokens: float) -> float:
    """Tokens in the cache of a row at a random step of decoding: prompt + E[X²] / 2 E[X].

    A row of X tokens is decoded for X steps, over which it holds X / 2 on average. Rows of 1 and 3 tokens
    hold (1 x 0.5 + 3 x 1.5) / 4 = 1.25 at a random one of their 4 steps.
    """
    return prompt_tokens + lengths.square / (2 * lengths.mean) if lengths.mean else prompt_tokens


def slowest_host(
    lengths: Lengths,
    *,
    hosts: int,
    problems: float,
    samples: int,
    quantile: float,
    by: Literal["problems", "samples"],
) -> float:
    """Tokens of the host with the most of them, as a multiple of the mean.

    The sum over a host's answers is taken as normal. With "problems" its variance is that of the sums of so many
    problems. With "samples" every host has answers to every problem: that a problem is long adds the same to all hosts,
    and what is left is the samples' own variance, problems x samples times. The largest of H such sums is below the q-quantile of
    the maximum, Φ⁻¹(q^(1/H)) standard deviations, in a share q of the steps.

    Args:
      problems: of all hosts, over the number of hosts.
      samples: of a problem, on all hosts.
      by: `Schedule.share_by`.
    """
    if hosts == 1 or not lengths.mean:
        return 1.0
    common = lengths.problem_variance if by == "problems" else 0.0
    of_problem = common + lengths.sample_variance / samples
    deviation = math.sqrt(of_problem / problems) / lengths.mean
    return 1.0 + deviation * max(0.0, _NORMAL.inv_cdf(quantile ** (1 / hosts)))


def _mu(mean: float, limit: float, spread: float) -> float:
    """μ of lengths with this mean after the cut, by bisection: the mean rises with μ."""
    low, high = math.log(mean) - 10 * spread, math.log(limit) + 10 * spread
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _cut(middle, spread, limit)[0] < mean else (low, middle)
    return low


def _cut(mu: float, sigma: float, limit: float) -> tuple[float, float]:
    """E[X] and E[X²] of X = min(limit, exp(μ + σ z)); σ may be 0.

    E[Xⁿ] = exp(n μ + n² σ² / 2) Φ(a - n σ) + limitⁿ (1 - Φ(a)), a = (ln limit - μ) / σ.
    """
    if sigma <= 0:
        x = min(limit, math.exp(mu))
        return x, x**2
    a = (math.log(limit) - mu) / sigma

    def moment(n: int) -> float:
        below = math.exp(n * mu + n**2 * sigma**2 / 2) * _NORMAL.cdf(a - n * sigma)
        return below + limit**n * (1 - _NORMAL.cdf(a))

    return moment(1), moment(2)


def _expected(of: Callable[[float], float]) -> float:
    """E[of(z)], z standard normal."""
    width = 16 / _STEPS
    return width * sum(_NORMAL.pdf(z) * of(z) for z in (-8 + width * i for i in range(_STEPS + 1)))
