import itertools
import math

import pytest
from helpers.answers import answer

from jaxtool.judges.same_answer import same_by
from jaxtool.rollout.answer_equations import (
    accuracy,
    lenient_accuracy,
    majority_at,
    majority_at_k,
    mean_score,
    pass_at,
    pass_at_k,
    tool_calls,
    tool_productivity,
    tool_productivity_of_right,
    usual_ks,
)
from jaxtool.rollout.answer_table import check_rests_on_enough, rests_on, table_of

SAME = same_by("Mathematics")


def _two_questions():
    """q0: right, right, wrong, wrong with 1, 0, 2, 0 calls; q1: right, wrong, wrong, wrong with 3, 1, 0, 1."""
    made = [(0, [1, 1, 0, 0], [1, 0, 2, 0]), (1, [1, 0, 0, 0], [3, 1, 0, 1])]
    return [
        answer(question=question, sample=i, right=bool(right), calls=count)
        for question, rights, calls in made
        for i, (right, count) in enumerate(zip(rights, calls, strict=True))
    ]


def test_pass_at_k_by_hand() -> None:
    # 2107.03374, equation 1, n = 4, c = 2, k = 2: 1 - C(2, 2) / C(4, 2) = 1 - 1/6.
    assert pass_at(4, 2, 2) == pytest.approx(5 / 6)
    assert pass_at(4, 1, 1) == pytest.approx(1 / 4)
    assert pass_at(4, 1, 4) == 1.0
    assert pass_at(4, 0, 4) == 0.0
    # Two questions of 4 answers, 2 and 1 right: (5/6 + (1 - C(3, 2) / C(4, 2))) / 2 = (5/6 + 1/2) / 2.
    assert pass_at_k(table_of(_two_questions()), 2) == pytest.approx(2 / 3)


def test_pass_at_k_is_the_mean_over_all_subsets() -> None:
    right = [1, 0, 0, 1, 0, 0, 1]
    for k in range(1, 8):
        subsets = list(itertools.combinations(right, k))
        assert pass_at(7, 3, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_a_k_above_the_samples_is_refused_in_one_line() -> None:
    with pytest.raises(ValueError, match=r"k=5: pass@k and maj@k need k from 1 to the 4 answers"):
        pass_at_k(table_of(_two_questions()), 5)
    with pytest.raises(ValueError, match=r"k=5"):
        majority_at_k(table_of(_two_questions()), 5, SAME)
    with pytest.raises(ValueError, match=r"k=0"):
        pass_at(4, 1, 0)


def test_majority_by_hand() -> None:
    # Three answers, two of them the right one: of three votes right; of two, one of three pairs and half of two ties.
    assert majority_at([0, 0, 1], [1, 1, 0], 3) == pytest.approx(1.0)
    assert majority_at([0, 0, 1], [1, 1, 0], 2) == pytest.approx(2 / 3)
    assert majority_at([0, 0, 1], [1, 1, 0], 1) == pytest.approx(2 / 3)
    # The wrong class has more votes than the right one.
    assert majority_at([0, 1, 1], [1, 0, 0], 3) == 0.0
    # One that says nothing has no vote: right against nothing is right.
    assert majority_at([0, None, None], [1, 0, 0], 3) == pytest.approx(1.0)
    assert majority_at([None, None], [0, 0], 2) == 0.0
    # Three classes tie: the right one wins one time in three.
    assert majority_at([0, 1, 2], [1, 0, 0], 3) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    "classes",
    [[0, 0, 0, 1, 1, 2, None], [0, 1, 1, 2, 2, 2, 3], [None, 0, 0, 1, 1, 1, None]],
    ids=["right_first", "right_second", "silent"],
)
def test_majority_is_the_mean_over_all_subsets(classes) -> None:
    right = [float(one in (0, 1) and one is not None) for one in classes]

    def vote(chosen) -> float:
        counts = {c: sum(classes[i] == c for i in chosen) for c in {classes[i] for i in chosen}}
        counts.pop(None, None)
        if not counts:
            return 0.0
        best = [c for c, count in counts.items() if count == max(counts.values())]
        return sum(c in (0, 1) for c in best) / len(best)

    for k in range(1, 8):
        subsets = list(itertools.combinations(range(7), k))
        expected = sum(map(vote, subsets)) / len(subsets)
        assert majority_at(classes, right, k) == pytest.approx(expected)


def test_equal_answers_vote_together_by_the_judge() -> None:
    texts = ["1/2", "0.5", "2", "2", "\\frac{1}{2}"]
    records = [
        answer(sample=i, right=text != "2", final_answer=text) for i, text in enumerate(texts)
    ]
    assert majority_at_k(table_of(records), 5, SAME) == 1.0
    # By the text alone 2 has the most votes.
    assert majority_at_k(table_of(records), 5, same_by("PythonFunction")) == 0.0


def test_accuracy_calls_and_productivity_by_hand() -> None:
    table = table_of(_two_questions())
    assert accuracy(table) == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert tool_calls(table) == pytest.approx(8 / 8)
    # OTC-PO, section 2.1: 3 right answers over 8 calls; over the 1 + 0 + 3 calls of right ones.
    assert tool_productivity(table) == pytest.approx(3 / 8)
    assert tool_productivity_of_right(table) == pytest.approx(3 / 4)


def test_without_calls_there_is_no_productivity() -> None:
    table = table_of([answer(right=True), answer(sample=1, right=False, calls=1)])
    assert tool_productivity(table) == 1.0
    assert tool_productivity_of_right(table) is None
    assert tool_productivity(table_of([answer(right=True)])) is None


def test_scores_are_f1_and_lenient_verdicts_their_own_rule() -> None:
    records = [
        answer(sample=0, right=True, is_lenient=True),
        answer(sample=1, score=0.5, is_lenient=True),
    ]
    assert mean_score(table_of(records)) == pytest.approx(0.75)
    assert accuracy(table_of(records)) == pytest.approx(0.5)
    assert lenient_accuracy(table_of(records)) == 1.0
    assert lenient_accuracy(table_of(_two_questions())) is None


def test_lost_answers_are_in_no_figure_and_counted() -> None:
    records = _two_questions()
    records[3] = answer(question=0, sample=3, is_lost=True)
    table = table_of(records)
    assert (table.answers, table.num_lost, table.samples) == (7, 1, 4)
    assert accuracy(table) == pytest.approx((2 / 3 + 1 / 4) / 2)
    # pass@4 rests on the question that has four.
    assert pass_at_k(table, 4) == 1.0
    assert rests_on(table) == "rests on 7 answers, 1 lost (12.5 %)"
    check_rests_on_enough(table, 0.2, "base")
    with pytest.raises(ValueError, match=r"base: rests on 7 answers, 1 lost .* more than the 1.0%"):
        check_rests_on_enough(table, 0.01, "base")


def test_answers_of_two_conditions_make_no_table() -> None:
    with pytest.raises(ValueError, match="of 2 policies or conditions"):
        table_of([answer(), answer(sample=1, max_tool_calls=0)])


def test_a_question_that_is_asked_twice_is_two_rows() -> None:
    asked = [answer(sample=s, right=s == 0) for s in range(2)]
    table = table_of([*asked, *asked])
    assert (table.questions, table.samples, table.answers) == (("q0", "q0"), 2, 4)
    assert pass_at_k(table, 2) == 1.0


def test_levels_are_parts_of_a_table() -> None:
    records = [answer(question=i, level="ab"[i % 2], right=i == 0) for i in range(4)]
    table = table_of(records).of_level("a")
    assert (table.questions, accuracy(table)) == (("q0", "q2"), 0.5)


def test_the_usual_ks() -> None:
    assert usual_ks(1) == (1,)
    assert usual_ks(32) == (1, 2, 4, 8, 16, 32)
    assert usual_ks(6) == (1, 2, 4, 6)


def test_votes_of_many_answers_stay_chances() -> None:
    classes = [i % 7 for i in range(256)]
    value = majority_at(classes, [float(one == 0) for one in classes], 128)
    assert 0 < value < 1
    assert math.isfinite(value)
