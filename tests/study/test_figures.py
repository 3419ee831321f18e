"""Figures of the study by numbers worked out by hand."""

import dataclasses
import math

import pytest

from jaxtool.study.figures import (
    EvalRecord,
    accuracy_by_level,
    against,
    best_point,
    figures,
    first_step_reaching,
    lost_fraction,
    mean_stderr,
    optimal_calls,
    over_seeds,
    tokens_until,
    whole,
    whole_in_both,
)


def answer(level, calls, is_correct, tokens=10):
    return EvalRecord(
        question=f"{level}/{calls}", level=level, calls=calls, is_correct=is_correct, tokens=tokens
    )


ANSWERS = [
    answer("two_digit", 0, True, 4),
    answer("two_digit", 2, True, 24),
    answer("hard", 0, False, 4),
    answer("hard", 1, True, 14),
    answer("chained", 1, False, 14),
]


@pytest.mark.parametrize(
    ("level", "mental", "calls"),
    [
        ("two_digit", 0.95, 0),
        ("two_digit", 0.81, 0),  # cos(π / 5) = 0.809
        ("two_digit", 0.80, 1),
        ("hard", 0.0, 1),
        ("hard", 1.0, 0),
        ("chained", 0.0, 2),
    ],
)
def test_optimal_calls_follow_what_the_policy_knows(level, mental, calls):
    assert optimal_calls(level, mental) == calls


def test_figures_and_regret_by_hand():
    found = figures(ANSWERS, {"two_digit": 0, "hard": 1, "chained": 2})
    assert found["accuracy"] == 3 / 5
    assert found["tool_calls"] == 4 / 5
    assert found["tool_productivity"] == 3 / 4
    assert found["optimal_calls"] == (0 + 0 + 1 + 1 + 2) / 5
    assert found["over_use"] == 2 / 5  # two calls where none was needed
    assert found["under_use"] == (1 + 1) / 5  # none for a hard one, one for a chained one
    assert found["tokens"] == 60 / 5
    assert accuracy_by_level(ANSWERS) == {"two_digit": 1.0, "hard": 0.5, "chained": 0.0}


def test_productivity_without_calls_is_unknown():
    found = figures([answer("two_digit", 0, True)], {"two_digit": 0})
    assert found["tool_productivity"] is None
    other = figures(ANSWERS, {"two_digit": 0, "hard": 1, "chained": 2})
    assert against(found, other)["calls_cut"] == 1.0
    assert against(found, other)["productivity_gain"] is None
    assert against(other, found)["calls_cut"] is None


def test_mean_and_standard_error_over_seeds_by_hand():
    found = mean_stderr([0.9, 0.96, 0.96])
    assert found["mean"] == pytest.approx(0.94)
    # Squares 0.0016 + 0.0004 + 0.0004 = 0.0024; s = sqrt(0.0024 / 2); / sqrt(3).
    assert found["stderr"] == pytest.approx(math.sqrt(0.0012) / math.sqrt(3))
    assert mean_stderr([0.9])["stderr"] is None
    assert mean_stderr([0.9, None]) == {"mean": None, "stderr": None, "seeds": [0.9, None]}
    assert over_seeds([{"x": 1.0}, {"x": 3.0}])["x"]["mean"] == 2.0
    assert over_seeds([{"x": 1.0}, {"x": 3.0}])["x"]["stderr"] == 1.0


def test_differences_by_hand():
    new = {
        "accuracy": 0.9,
        "tool_calls": 0.4,
        "tool_productivity": 2.25,
        "over_use": 0.0,
        "under_use": 0.1,
    }
    old = {
        "accuracy": 0.95,
        "tool_calls": 1.6,
        "tool_productivity": 0.59375,
        "over_use": 1.0,
        "under_use": 0.0,
    }
    found = against(new, old)
    assert found["accuracy_points"] == pytest.approx(-5.0)
    assert found["calls_cut"] == pytest.approx(0.75)
    assert found["productivity_gain"] == pytest.approx(2.25 / 0.59375 - 1)
    assert found["over_use"] == -1.0
    assert found["under_use"] == 0.1


def test_lost_answers_are_in_no_figure_and_differences_are_of_what_both_have():
    lost = [dataclasses.replace(a, is_lost=i == 1) for i, a in enumerate(ANSWERS)]
    others = [dataclasses.replace(a, is_lost=i == 3) for i, a in enumerate(ANSWERS)]
    assert whole(lost) == [ANSWERS[0], *ANSWERS[2:]]
    assert lost_fraction(lost) == 0.2
    assert lost_fraction(ANSWERS) == 0.0
    kept = [ANSWERS[0], ANSWERS[2], ANSWERS[4]]
    assert whole_in_both(lost, others) == (kept, kept)
    with pytest.raises(ValueError, match="answers to different questions"):
        whole_in_both(lost, lost[::-1])


def test_target_step_is_the_first_that_reaches_it():
    curve = [(0, 0.4), (5, 0.7), (10, 0.6), (15, 0.7)]
    assert first_step_reaching(curve, 0.4) == 0
    assert first_step_reaching(curve, 0.65) == 5
    assert first_step_reaching(curve, 0.71) is None
    assert best_point(curve) == (5, 0.7)


def test_tokens_until_a_step():
    rows = [{"step": step, "tokens/policy_mean": 10.0 + step} for step in range(3)]
    assert tokens_until(rows, 4, 0) == 0
    assert tokens_until(rows, 4, 2) == 4 * (10 + 11)
    assert tokens_until([*rows, {"step": 3}], 4, 4) == 4 * (10 + 11 + 12)  # a step that lost all
