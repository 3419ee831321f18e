"""Accuracy over calls: points and intervals by hand, from each source of figures."""

import pytest
from helpers.answers import answer

from jaxtool.study.accuracy_over_calls import (
    accuracy_over_calls,
    pictures_of_evaluations,
    spot_of_answers,
    spot_of_figures,
    spot_of_means,
)
from jaxtool.study.compare import SAMPLINGS
from jaxtool.train.evaluation import Evaluation

ANSWERS = [answer("base", q, right=q % 2 == 0, calls=q % 4) for q in range(40)]


def evaluation(accuracy, calls, is_refused=False):
    part = {
        **{"accuracy": accuracy, "accuracy_stderr": 0.1, "answers": 9, "lost": 0},
        **{"tool_calls": calls, "tool_calls_stderr": 0.05},
    }
    return Evaluation(overall={} if is_refused else part, levels={}, answers=(), groups=())


def test_a_point_of_answers_and_what_its_intervals_are_over():
    spot = spot_of_answers([ANSWERS], name="base")
    assert (spot.accuracy.value, spot.calls.value) == (0.5, 1.5)
    assert spot.accuracy.low < 0.5 < spot.accuracy.high
    assert spot.accuracy.over == "questions and samples"


def test_a_point_of_seeds_has_t_intervals_cut_at_what_is_possible():
    """Accuracy 0.5 and 1: mean 0.75, s = 0.354, half 12.71 · 0.354 / √2 = 3.2: cut at 0 and 1."""
    right = [answer("base", q, right=True, calls=1) for q in range(40)]
    spot = spot_of_answers([ANSWERS, right], name="base")
    assert (spot.accuracy.value, spot.accuracy.low, spot.accuracy.high) == (0.75, 0.0, 1.0)
    assert (spot.calls.value, spot.calls.low, spot.calls.over) == (1.25, 0.0, "seeds")


def test_a_point_of_standard_errors():
    spot = spot_of_figures(evaluation(0.9, 0.04).overall, name="x")
    assert (spot.accuracy.low, spot.accuracy.high) == pytest.approx((0.9 - 0.196, 1.0))
    assert (spot.calls.low, spot.calls.high) == pytest.approx((0.0, 0.04 + 0.098))


def test_one_seed_has_a_point_without_bars_and_no_mean_no_point():
    one = {"mean": 0.5, "seeds": [0.5], "stderr": None}
    spot = spot_of_means({"accuracy": one, "tool_calls": one}, name="x")
    assert spot is not None
    [series] = accuracy_over_calls([spot]).series
    assert (series.xs, series.x_intervals, series.y_intervals) == ([0.5], [None], [None])
    none = {"mean": None, "seeds": [None], "stderr": None}
    assert spot_of_means({"accuracy": one, "tool_calls": none}, name="x") is None


def test_budgets_of_a_policy_are_one_curve_and_refused_evaluations_are_in_none():
    variants = {
        "base": {"greedy_calls_0": evaluation(0.4, 0.0), "greedy_calls_1": evaluation(0.6, 0.7)},
        "last": {"greedy_calls_0": evaluation(0, 0, True), "sampled": evaluation(0.5, 0.5)},
    }
    greedy, sampled = pictures_of_evaluations(variants)
    assert [greedy.title, sampled.title] == [f"Accuracy over calls, {way}" for way in SAMPLINGS]
    [series] = greedy.series
    assert (series.name, series.xs, series.ys) == ("base", [0.0, 0.7], [0.4, 0.6])
    assert series.labels == ["calls 0", "calls 1"]
    assert greedy.note == "Bars are intervals of 95 % over questions."
    assert pictures_of_evaluations({}) == ()
