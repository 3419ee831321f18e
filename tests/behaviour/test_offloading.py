"""Offloading, by hand."""

import numpy as np
import pytest
from helpers.behaviour_answers import WITH, WITHOUT, answered, asked, probed, ran

from jaxtool.behaviour.offloading import Question, auc, curve, gap, offloading, questions


def test_shares_of_calls_by_hand():
    """Calls 2, 1, 2 an answer at solve rates 1, ½, 0: needless 2 of 5, offloaded 2 + ½ of 5."""
    found = offloading(WITH, WITHOUT)
    assert (found.questions, found.left_out, found.answers_without) == (3, 0, 12)
    assert found.needless == 2 / 5
    assert found.offloaded == 2.5 / 5
    assert offloading(WITH, WITHOUT, threshold=0.5).needless == 3 / 5


def test_curve_by_hand():
    bins = offloading(WITH, WITHOUT).curve
    assert [(b.low, b.high, b.questions) for b in bins] == [(0, 0.2, 1), (0.4, 0.6, 1), (0.8, 1, 1)]
    assert [b.calls for b in bins] == [2, 1, 2]
    assert [b.call_rate for b in bins] == [1, 0.5, 1]
    assert [b.accuracy for b in bins] == [0, 1, 1]
    assert bins[0].calls_interval is None  # of one question


def test_auc_by_hand():
    """Silent: half of "half" (p = ½). Calling: 1 at p = 1, ½ at ½, 1 at 0: (1 + ½ · ½) / 2.5 = ½."""
    assert offloading(WITH, WITHOUT).auc == 0.5
    assert auc(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == 1.0
    assert auc(np.array([1.0, 0.0]), np.array([1.0, 0.0])) == 0.0
    assert auc(np.array([0.5, 0.5]), np.array([1.0, 0.0])) == 0.5
    assert auc(np.array([1.0, 0.0]), np.array([1.0, 1.0])) is None


def test_gap_by_hand():
    """|1 - 0| / 3, |½ - ½| / 3, |1 - 1| / 3: only the known question calls without need."""
    assert offloading(WITH, WITHOUT).gap == pytest.approx(1 / 3)
    needy = [
        Question(problem_id="a", solve_rate=0.0, calls=1, call_rate=1.0, accuracy=1.0),
        Question(problem_id="b", solve_rate=1.0, calls=0, call_rate=0.0, accuracy=1.0),
    ]
    assert gap(needy) == 0.0


def test_bins_end_where_the_next_begins_and_the_last_holds_one():
    rates = (0.0, 0.2, 0.79, 0.8, 1.0)
    found = curve(
        [
            Question(problem_id=str(rate), solve_rate=rate, calls=0, call_rate=0, accuracy=1)
            for rate in rates
        ]
    )
    assert [(b.low, b.questions) for b in found] == [(0.0, 1), (0.2, 1), (0.6, 1), (0.8, 2)]


def test_lost_and_unpaired_questions_are_left_out_and_counted():
    lost = [answered(ran("x"), problem="lost", is_lost=True)]
    found = offloading([*WITH, *asked("unprobed", 1), *lost], [*WITHOUT, *probed("lost", True)])
    assert (found.questions, found.left_out) == (3, 2)
    assert found.needless == 2 / 5
    assert offloading(asked("a", 1), probed("b", True)) is None


def test_answers_on_the_wrong_side_are_refused():
    with pytest.raises(ValueError, match="without any"):
        questions(WITH, WITH)


def test_a_policy_that_never_calls_offloads_nothing():
    found = offloading(asked("known", 0, 0), probed("known", True))
    assert found.needless is None
    assert found.offloaded is None
    assert found.auc is None
    assert found.needless_interval is None


def test_offloaded_does_not_depend_on_the_number_of_probes_and_needless_does():
    """Solve rates of 0.8, one call each, 2,000 questions: offloaded 0.8; needless 0.8^k with k probes, truly 0."""
    draw = np.random.default_rng(0)
    made = [record for i in range(2000) for record in asked(f"q{i}", 1)]
    for probes, chance in ((1, 0.8), (4, 0.8**4)):
        without = [r for i in range(2000) for r in probed(f"q{i}", *(draw.random(probes) < 0.8))]
        found = offloading(made, without)
        low, high = found.offloaded_interval
        assert low < found.offloaded < high
        assert found.offloaded == pytest.approx(0.8, abs=0.03)
        assert found.needless == pytest.approx(chance, abs=0.04)
