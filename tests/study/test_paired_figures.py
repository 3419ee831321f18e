"""Differences between two policies on the same questions: by hand, and what is refused or counted."""

import dataclasses

import numpy as np
import pytest
from helpers.answers import answer

from jaxtool.study.paired_answers import pair_answers
from jaxtool.study.paired_figures import differences, sign_test

NAMES = ("new", "old")


def side(*rows, policy="base"):
    """Rows are of questions 0, 1, ...: pairs of (is right, calls), one an answer; None is a lost one."""
    return [
        answer(policy, question, sample, right=pair[0], calls=pair[1])
        if pair
        else answer(policy, question, sample, is_lost=True)
        for question, row in enumerate(rows)
        for sample, pair in enumerate(row)
    ]


def pairing(new, old):
    return pair_answers(new, old, names=NAMES)


OLD = side([(True, 1), (False, 1)], [(False, 2), (False, 2)], [(True, 0), (True, 2)])
NEW = side([(True, 0), (True, 1)], [(False, 0), (True, 1)], [(True, 0), (False, 0)])


def test_figures_and_differences_by_hand():
    """Accuracy: 1/2, 0, 1 against 1, 1/2, 1/2. Calls: 1, 2, 1 against 1/2, 1/2, 0. TP: 3/8 against 4/2."""
    changes = differences([pairing(NEW, OLD)]).changes
    found = {name: (one.old, one.new, one.difference) for name, one in changes.items()}
    assert found["accuracy"] == pytest.approx((1 / 2, 2 / 3, 1 / 6))
    assert found["tool_calls"] == pytest.approx((4 / 3, 1 / 3, -1))
    assert found["tool_productivity"] == pytest.approx((3 / 8, 2, 2 - 3 / 8))
    assert found["policy_tokens"] == (4, 4, 0)
    assert [one.over for one in changes["accuracy"].intervals] == ["questions"]


def test_an_interval_over_questions_is_that_of_the_mean_of_differences():
    """200 questions, half of them +1, half 0: mean 1/2, standard error 1/(2 √200) = 0.0354."""
    new = side(*[[(True, 0)]] * 200)
    old = side(*[[(i % 2 == 0, 0)] for i in range(200)])
    change = differences([pairing(new, old)]).changes["accuracy"]
    [interval] = change.intervals
    assert interval.low == pytest.approx(0.5 - 1.96 * 0.0354, abs=0.015)
    assert interval.high == pytest.approx(0.5 + 1.96 * 0.0354, abs=0.015)
    assert interval.excludes_zero
    assert differences([pairing(new, old)]).changes["accuracy"] == change


@pytest.mark.parametrize(
    ("better", "worse", "p"),
    [(5, 1, 14 / 64), (0, 0, 1.0), (1, 0, 1.0), (0, 6, 2 / 64), (3, 3, 1.0), (10, 0, 2 / 1024)],
)
def test_the_sign_test_is_the_binomials_tail(better, worse, p):
    assert sign_test(better, worse) == pytest.approx(p)
    assert sign_test(worse, better) == sign_test(better, worse)


def test_one_answer_each_is_mcnemar_and_several_the_sign_test():
    single = differences([pairing(side([(True, 0)], [(True, 0)]), side([(False, 0)], [(True, 0)]))])
    assert dataclasses.astuple(single.test) == ("McNemar, exact", 1, 0, 1.0)
    several = differences([pairing(NEW, OLD)]).test
    assert (several.name, several.better, several.worse, several.p) == (
        *("sign test over questions", 2, 1),
        1.0,
    )


def test_intervals_over_seeds_are_t_intervals_of_the_seeds_differences():
    """Differences 1/2, 0 and 1: mean 1/2, s = 1/2, t(2) = 4.303, so ± 4.303 · 0.5 / √3 = 1.242."""
    old = side(*[[(False, 1)]] * 4)
    seeds = [pairing(side(*[[(i < right, 1)] for i in range(4)]), old) for right in (2, 0, 4)]
    found = differences(seeds)
    accuracy = found.changes["accuracy"]
    assert accuracy.difference == pytest.approx(0.5)
    by_over = {one.over: one for one in accuracy.intervals}
    assert list(by_over) == ["questions", "seeds", "seeds and questions"]
    assert by_over["seeds"].low == pytest.approx(0.5 - 1.242, abs=0.001)
    assert by_over["seeds and questions"].low <= by_over["questions"].low
    assert found.test.name == "t-test over seeds"
    assert found.test.p == pytest.approx(0.225, abs=0.001)


def test_seeds_with_the_same_questions_share_the_draw_of_questions():
    """The same pairing twice: with crossed draws the interval is that of one seed, not narrower by √2."""
    new, old = side(*[[(i % 3 == 0, 0)] for i in range(60)]), side(*[[(False, 0)]] * 60)
    one = pairing(new, old)
    alone = differences([one]).changes["accuracy"].intervals[0]
    twice = differences([one, one]).changes["accuracy"].intervals[0]
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    renamed = pairing(
        [dataclasses.replace(a, problem_id=f"x{a.problem_id}") for a in new],
        [dataclasses.replace(a, problem_id=f"x{a.problem_id}") for a in old],
    )
    nested = differences([one, renamed]).changes["accuracy"].intervals[0]
    assert nested.high - nested.low < 0.85 * (alone.high - alone.low)


def test_productivity_without_calls_is_undefined_and_replicates_without_are_left_out():
    none = side([(True, 0)], [(True, 0)])
    change = differences([pairing(none, side([(True, 1)], [(False, 0)]))]).changes
    tp = change["tool_productivity"]
    assert (tp.old, tp.new, tp.difference, tp.intervals) == (1.0, None, None, ())
    assert change["tool_calls"].difference == -0.5
    some = differences([pairing(side([(True, 1)], [(True, 0)]), side([(True, 1)], [(False, 0)]))])
    [interval] = some.changes["tool_productivity"].intervals
    assert np.isfinite([interval.low, interval.high]).all()


def test_one_question_has_no_interval():
    found = differences([pairing(side([(True, 0)]), side([(False, 1)]))])
    assert all(change.intervals == () for change in found.changes.values())
    assert found.changes["accuracy"].difference == 1.0


def test_a_question_that_is_asked_twice_is_two_pairs():
    new, old = side([(True, 0)], [(True, 1)]), side([(False, 0)], [(True, 1)])
    found = pairing([*new, new[0]], [*old, old[0]])
    assert [pair.problem_id for pair in found.pairs] == ["q0", "q1", "q0"]
    assert differences([found]).test.name == "McNemar, exact"
    assert pairing([*new, new[0]], old).only_new == 1


def test_lost_answers_and_questions_of_one_side_are_left_out_and_counted():
    new = side([(True, 0)], [None], [(True, 0)], [(True, 0)], [(True, 1)])[:5]
    old = side([(True, 0)], [(True, 0)], [None], [(False, 0)])
    found = pairing(new, [*old, answer("base", 9), answer("base", 10)])
    assert [pair.problem_id for pair in found.pairs] == ["q0", "q3"]
    assert (found.with_lost, found.only_new, found.only_old) == (2, 1, 2)
    assert found.pairs[1].gain == 1.0
    assert [a.problem_id for a in found.records("old")] == ["0", "1"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"question": "Which?"}, r"question q0 has another text in new \('Which\?'\) than in old"),
        ({"references": ("7",)}, r"question q0 has other reference answers in new \(\('7',\)\)"),
        ({"problem_id": "z"}, "new and old share no question: z is not among those of old, q0 not"),
    ],
)
def test_answers_to_other_questions_are_refused_by_name(changed, message):
    with pytest.raises(ValueError, match=message):
        pairing([dataclasses.replace(answer("base", 0), **changed)], [answer("base", 0)])
