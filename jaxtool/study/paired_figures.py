"""What one policy changes against another on the same questions: figures of both, differences, intervals, a test.

  accuracy           avg@k: mean over questions of the share of right answers
  tool_calls         TC: calls that got an observation, an answer          OTC-PO, 2504.14870, section 2.1
  policy_tokens      tokens that the policy wrote, an answer
  tool_productivity  TP: right answers / all calls                         OTC-PO, 2504.14870, section 2.1

The first three are means over questions of a question's own mean, so a difference is that of each question. An interval
says what it is over, that is, what would be drawn anew:
  questions            the bootstrap over questions, each with all its answers on both sides
  seeds                the t-interval over the differences of each seed (`intervals`)
  seeds and questions  both drawn, crossed where every seed has the same questions (Owen 2007, "The pigeonhole
                       bootstrap"), else questions within each seed
Pure functions.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

import numpy as np

from jaxtool.study.intervals import p_value, t_interval
from jaxtool.study.paired_answers import Columns, Pairing, columns_of

REPLICATES = 1000
_ALPHA = 0.05
Places = list[
    tuple[int, np.ndarray]
]  # a seed and the questions that are drawn of it [Q], each once or more
Measure = Literal["accuracy", "tool_calls", "policy_tokens", "tool_productivity"]
MEASURES: tuple[Measure, ...] = get_args(Measure)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Range:
    """An interval of 95 %."""

    low: float
    high: float
    over: str  # what would be drawn anew: "questions", "seeds", "seeds and questions"

    @property
    def excludes_zero(self) -> bool:
        return self.low > 0 or self.high < 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Change:
    """One figure of both sides. None: it is not defined, which is TP without calls."""

    old: float | None
    new: float | None
    difference: float | None  # new less old
    intervals: tuple[Range, ...]  # of the difference


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignTest:
    """Whether as many questions got better as got worse.

    With one answer a side it is McNemar's exact test; of several seeds it is the t-test of the mean difference.
    """

    name: str
    better: int  # questions on which the new side's accuracy is higher
    worse: int
    p: float  # two-sided


def sign_test(better: int, worse: int) -> float:
    """Two-sided p-value of Binomial(better + worse, 1/2), McNemar 1947 in its exact form; 1 where nothing differs.

    Example: 5 better and 1 worse: 2 · (C(6, 0) + C(6, 1)) / 2⁶ = 14 / 64 = 0.21875.
    """
    n = better + worse
    tail = sum(math.comb(n, i) for i in range(min(better, worse) + 1))
    return min(1.0, 2 * tail / 2**n)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Differences:
    """Of one pair of policies under one condition, over all seeds."""

    changes: Mapping[Measure, Change]
    test: SignTest


def differences(seeds: Sequence[Pairing], *, seed: int = 0) -> Differences:
    """Figures of both sides and what changes.

    Args:
      seeds: the pairs of each seed of the two policies, at least one pair each; mostly one seed.
      seed: of the bootstrap.
    """
    new = [columns_of(pair.new for pair in pairing.pairs) for pairing in seeds]
    old = [columns_of(pair.old for pair in pairing.pairs) for pairing in seeds]
    ids = [tuple(pair.problem_id for pair in pairing.pairs) for pairing in seeds]
    draws = Draws(sizes=tuple(map(len, ids)), is_crossed=len(set(ids)) == 1, seed=seed)
    changes: dict[Measure, Change] = {name: _change(name, new, old, draws) for name in MEASURES}
    return Differences(changes=changes, test=_test(seeds, new, old))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Draws:
    """How replicates are drawn; every figure gets the same ones."""

    sizes: tuple[int, ...]  # questions of each seed
    is_crossed: bool  # every seed has the same questions, so they are drawn once for all
    seed: int

    @property
    def as_they_are(self) -> Places:
        """Every seed with every question once."""
        return [(s, np.arange(size)) for s, size in enumerate(self.sizes)]

    def interval(self, figure: Callable[[Places], float], *, with_seeds: bool) -> Range | None:
        """The percentile interval of a figure over replicates; NaN, a replicate without the figure, is left out.

        None where there are fewer than two questions, or no replicate has the figure.
        """
        if max(self.sizes) < 2:
            return None
        generator = np.random.default_rng([self.seed, int(with_seeds)])
        values = [figure(self._drawn(generator, with_seeds)) for _ in range(REPLICATES)]
        known = [value for value in values if math.isfinite(value)]
        if not known:
            return None
        low, high = np.quantile(known, [_ALPHA / 2, 1 - _ALPHA / 2])
        over = "seeds and questions" if with_seeds else "questions"
        return Range(low=float(low), high=float(high), over=over)

    def _drawn(self, generator: np.random.Generator, with_seeds: bool) -> Places:
        count = len(self.sizes)
        seeds = generator.integers(count, size=count) if with_seeds else np.arange(count)
        if self.is_crossed:
            questions = generator.integers(self.sizes[0], size=self.sizes[0])
            return [(int(s), questions) for s in seeds]
        return [(int(s), generator.integers(self.sizes[s], size=self.sizes[s])) for s in seeds]


def _change(name: Measure, new: Sequence[Columns], old: Sequence[Columns], draws: Draws) -> Change:
    everything = draws.as_they_are

    def side(columns: Sequence[Columns], places: Places) -> float:
        return float(np.mean([_value(name, columns[s], chosen) for s, chosen in places]))

    def gap(places: Places) -> float:
        return side(new, places) - side(old, places)

    value = gap(everything)
    intervals = [draws.interval(gap, with_seeds=False)]
    if len(draws.sizes) > 1:
        each = [gap([place]) for place in everything]
        if all(map(math.isfinite, each)):
            t = t_interval(each)
            intervals.append(Range(low=t.low, high=t.high, over="seeds"))
        intervals.append(draws.interval(gap, with_seeds=True))
    return Change(
        old=_known(side(old, everything)),
        new=_known(side(new, everything)),
        difference=_known(value),
        intervals=tuple(i for i in intervals if i is not None) if math.isfinite(value) else (),
    )


def _value(name: Measure, columns: Columns, chosen: np.ndarray) -> float:
    """A figure of some questions, each counted as often as it is drawn."""
    if name == "tool_productivity":
        calls = float(columns.calls[chosen].sum())
        return float(columns.right[chosen].sum()) / calls if calls else math.nan
    values = {
        "accuracy": columns.accuracy,
        "tool_calls": columns.tool_calls,
        "policy_tokens": columns.policy_tokens,
    }[name]
    return float(values[chosen].mean())


def _test(seeds: Sequence[Pairing], new: Sequence[Columns], old: Sequence[Columns]) -> SignTest:
    gaps = [a.accuracy - b.accuracy for a, b in zip(new, old, strict=True)]
    better = sum(int((gap > 1e-9).sum()) for gap in gaps)
    worse = sum(int((gap < -1e-9).sum()) for gap in gaps)
    if len(seeds) > 1:
        p = p_value([float(gap.mean()) for gap in gaps])
        return SignTest(name="t-test over seeds", better=better, worse=worse, p=p)
    is_single = all(len(side) == 1 for pair in seeds[0].pairs for side in (pair.new, pair.old))
    name = "McNemar, exact" if is_single else "sign test over questions"
    return SignTest(name=name, better=better, worse=worse, p=sign_test(better, worse))


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
