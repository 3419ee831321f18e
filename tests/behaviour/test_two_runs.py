"""OTC's behaviour shares, by hand."""

import pytest
from helpers.behaviour_answers import answered, ran

from jaxtool.behaviour.two_runs import SHARES, behaviour_shares, question_shares


def run(*outcomes, policy="new"):
    """Answers to q0, q1, ...: (is right, calls)."""
    return [
        answered(*[ran("x")] * calls, problem=f"q{i}", is_correct=is_right, policy=policy)
        for i, (is_right, calls) in enumerate(outcomes)
    ]


def test_one_answer_each_by_hand():
    """Against (right, 2), (wrong, 1), (wrong, 1), (right, 1), (wrong, 2), (right, 0): ME, LE, MA, LA, MA and AE, same."""
    new = run((True, 1), (False, 2), (True, 1), (False, 0), (True, 1), (True, 0))
    old = run((True, 2), (False, 1), (False, 1), (True, 1), (False, 2), (True, 0))
    found = behaviour_shares(new, old)
    assert found.questions == 6
    assert found.left_out == 0
    expected = {"ME": 1 / 6, "LE": 1 / 6, "MA": 2 / 6, "LA": 1 / 6, "AE": 1 / 6}
    assert found.shares == pytest.approx(expected)
    assert tuple(found.shares) == SHARES


def test_several_answers_are_paired_each_with_each():
    """(right, 0), (wrong, 1) against (right, 1), (right, 1): two ME and two LA of four pairs."""
    found = question_shares([(True, 0), (False, 1)], [(True, 1), (True, 1)])
    assert found == {"ME": 0.5, "LE": 0.0, "MA": 0.0, "LA": 0.5, "AE": 0.0}


def test_every_question_counts_as_one_and_lost_ones_are_counted_apart():
    """q0: 3 answers, all MA. q1: the same. q2 is lost by one side, q3 was not asked of the other."""
    new = [answered(problem="q0", sample=s) for s in range(3)] + [answered(problem="q1")]
    new += [answered(problem="q2"), answered(problem="q3")]
    old = [answered(problem="q0", is_correct=False), answered(problem="q1")]
    old += [answered(problem="q2", is_lost=True)]
    found = behaviour_shares(new, old)
    assert (found.questions, found.left_out) == (2, 2)
    assert found.shares["MA"] == 0.5


def test_the_same_run_twice_differs_in_nothing_and_exchanged_runs_mirror():
    one = run((True, 1), (False, 2), (True, 0))
    other = run((False, 2), (False, 1), (True, 1))
    assert set(behaviour_shares(one, one).shares.values()) == {0.0}
    ours, theirs = behaviour_shares(one, other).shares, behaviour_shares(other, one).shares
    assert (ours["ME"], ours["MA"]) == (theirs["LE"], theirs["LA"])


def test_without_a_common_question_there_are_no_shares():
    assert behaviour_shares([answered(problem="a")], [answered(problem="b")]) is None


def test_intervals_hold_the_share_and_need_two_questions():
    many = behaviour_shares(run(*[(True, 0)] * 30, *[(False, 1)] * 10), run(*[(True, 1)] * 40))
    low, high = many.intervals["ME"]
    assert 0.55 < low < many.shares["ME"] == 0.75 < high < 0.9
    assert behaviour_shares(run((True, 0)), run((True, 1))).intervals["ME"] is None
