"""Intervals and corrected p-values by tables of the t distribution and by hand."""

import math

import pytest

from jaxtool.study.figures import mean_stderr
from jaxtool.study.intervals import Interval, holm, p_value, t_interval
from jaxtool.study.tables import interval


def test_interval_by_the_table():
    """t(2) = 4.303, t(6) = 2.447 for 95 %; t(2) = 2.920 for 90 %."""
    three = t_interval([1.0, 2.0, 3.0])
    assert (three.mean, three.low) == pytest.approx((2.0, 2 - 4.303 / math.sqrt(3)), abs=1e-3)
    assert t_interval([1.0, 2.0, 3.0], 0.9).high == pytest.approx(2 + 2.920 / 3**0.5, abs=1e-3)
    seven = t_interval([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0])  # mean 1, s = √7
    assert (seven.low, seven.high) == pytest.approx((1 - 2.447, 1 + 2.447), abs=1e-3)


def test_interval_of_equal_seeds_is_a_point_and_one_seed_has_none():
    assert t_interval([2.0, 2.0]) == Interval(mean=2.0, low=2.0, high=2.0)
    with pytest.raises(ValueError, match="at least 2 seeds, got 1"):
        t_interval([2.0])


def test_an_interval_that_touches_zero_does_not_exclude_it():
    assert Interval(mean=1, low=0.1, high=2).excludes_zero
    assert Interval(mean=-1, low=-2, high=-0.1).excludes_zero
    assert not Interval(mean=-1, low=-2, high=0).excludes_zero


def test_p_value_by_hand():
    """With 2 degrees of freedom P(|t| > x) = 1 - x / √(x² + 2); here x = 2 √3."""
    assert p_value([1.0, 2.0, 3.0]) == pytest.approx(1 - math.sqrt(12 / 14))
    assert p_value([-1.0, -2.0, -3.0]) == p_value([1.0, 2.0, 3.0])
    assert p_value([0.0, 0.0]) == 1.0
    assert p_value([1.0, 1.0]) == 0.0


def test_holm_by_hand():
    """.01 · 3; .03 · 2 = .06; .04 · 1 is raised to it. More than 1 is 1."""
    assert holm({"b": 0.03, "a": 0.01, "c": 0.04}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({"a": 0.6, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_a_table_shows_the_interval_or_a_dash():
    """OTC's points on seeds 0 to 2, as in docs/results.md: 2.83 ± 4.303 · 0.92."""
    assert interval(mean_stderr([4.67, 2.0, 1.83])) == "-1.1..+6.8"
    assert interval(mean_stderr([4.67])) == "–"
    assert interval(mean_stderr([4.67, None])) == "–"
