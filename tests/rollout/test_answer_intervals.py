import dataclasses

import numpy as np
import pytest
from helpers.answers import answer

from jaxtool.rollout.answer_intervals import interval, over_questions, resample
from jaxtool.rollout.answer_table import table_of


def _table(rights, calls=0):
    """One row of right (1) and wrong (0) answers for each question."""
    return table_of(
        answer(question=q, sample=i, right=bool(right), calls=calls)
        for q, row in enumerate(rights)
        for i, right in enumerate(row)
    )


def test_the_same_seed_gives_the_same_interval_and_another_one_another() -> None:
    table = _table(np.eye(8, dtype=int))
    first, again, other = (resample(table, seed=seed).means("correct") for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_with_fixed_questions_only_samples_are_drawn() -> None:
    # Each question is always or never right: asked again, the same ones give the same.
    table = _table([[1, 1], [0, 0], [1, 1], [0, 0]])
    fixed = resample(table, questions=False)
    np.testing.assert_array_equal(fixed.means("correct"), 0.5)
    assert fixed.over == "samples"
    drawn = resample(table)
    assert drawn.means("correct").std() == pytest.approx(0.25, abs=0.02)  # sqrt(1/4 / 4)
    assert drawn.over == "questions and samples"
    assert resample(table, samples=False).over == "questions"


def test_spreads_of_both_levels_by_hand() -> None:
    # Every question has 2 right of 4: no spread between questions, sqrt(1/4 / (25 · 4)) = 0.05 of samples.
    table = _table([[1, 0, 1, 0]] * 25)
    assert resample(table, samples=False).means("correct").std() == 0.0
    assert resample(table).means("correct").std() == pytest.approx(0.05, abs=0.004)


def test_lost_answers_are_never_drawn() -> None:
    records = [answer(question=q, sample=s, right=True, calls=1) for q in (0, 1) for s in range(3)]
    records[2] = answer(question=0, sample=2, is_lost=True)
    found = resample(table_of(records))
    np.testing.assert_array_equal(found.means("correct"), 1.0)
    np.testing.assert_array_equal(found.sums("calls"), found.sums("answers"))


def test_an_interval_leaves_out_what_has_no_value() -> None:
    figure = interval(0.5, np.asarray([0.0, 1.0, np.nan]), "questions")
    assert dataclasses.astuple(figure) == (0.5, 0.025, 0.975, "questions")


def test_a_mean_over_questions_leaves_out_those_without_a_value() -> None:
    figure = over_questions(np.asarray([1.0, 1.0, np.nan]), seed=0)
    assert dataclasses.astuple(figure) == (1.0, 1.0, 1.0, "questions")


def test_intervals_of_fresh_questions_hold_the_truth_as_often_as_they_say() -> None:
    generator = np.random.default_rng(0)
    held = 0
    for seed in range(200):
        chances = generator.beta(1, 1, size=40)  # mean 1/2
        rights = generator.random((40, 4)) < chances[:, None]
        means = resample(_table(rights), seed=seed, replicates=300).means("correct")
        figure = interval(0.0, means, "")
        held += figure.low <= 0.5 <= figure.high
    assert 0.92 <= held / 200 <= 1.0
