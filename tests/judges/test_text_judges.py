"""Exact match, F1 and multiple choice: any of several references, nothing else."""

import pytest

from jaxtool.core.types import Problem, Verdict
from jaxtool.judges.base import Case, Judge
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice, TokenF1, choices

LETTERS = "ABCDEFGHIJ"


def verdict(judge: Judge, answer: str | None, *references: str) -> Verdict:
    problem = Problem(problem_id="p", question="", answer=references[0], answers=references)
    with judge.open() as opened:
        [found] = opened.judge([Case(problem=problem, answer=answer, response="")])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("answer", "references", "right"),
    [
        ("the Chief of Protocol", ["Chief of Protocol"], True),
        ("Protocol of Chief", ["Chief of Protocol"], False),
        ("NYC", ["New York", "New York City", "NYC"], True),
        ("Boston", ["New York", "NYC"], False),
        ("Yes.", ["yes"], True),
        ("der", ["red"], False),
        ("3.5", ["35"], False),
        ("5", ["-5"], False),
        ("\\textbf{Evelyn}", ["\\text{Evelyn}"], True),
        ("the", ["an"], False),
        (None, ["yes"], False),
    ],
)
def test_exact_match(answer, references, right):
    assert verdict(ExactMatch(), answer, *references).is_correct is right


def test_f1_takes_the_best_reference_and_leaves_accuracy_to_the_exact_match():
    found = verdict(TokenF1(), "in New York City", "Boston", "New York")
    assert (found.score, found.is_correct) == (pytest.approx(2 / 3), False)
    assert verdict(TokenF1(), "New York", "Boston", "new york").is_correct
    assert verdict(TokenF1(threshold=0.6), "in New York City", "New York").is_correct
    assert not verdict(TokenF1(), "Protocol of Chief", "Chief of Protocol").is_correct


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("C", "C"), ("c", "C"), ("(C)", "C"), ("[C]", "C"), ("C.", "C"), ("C)", "C"), ("C:", "C"),
        ("Option C", "C"), ("option (c)", "C"), ("The answer is C.", "C"), ("Answer: C", "C"),
        ("the correct choice is (C)", "C"), ("\\text{C}", "C"), ("\\textbf{(D)}", "D"),
        ("\\textbf{(D)}\\ 12", "D"), ("$C$", "C"), ("**C**", "C"), ("`C`", "C"), ("C. Paris", "C"),
        ("(C) 42", "C"), ("C: 5 cm", "C"), ("C. A dog", "C"),
        ("A, C", "AC"), ("A and C", "AC"), ("A & C", "AC"), ("AC", "AC"), ("CA", "AC"), ("(A), (C)", "AC"),
        ("Options A and C", "AC"), ("A B", "AB"),
        ("C or D", ""), ("C) or D)", ""), ("B and not C", ""), ("ABBA", ""), ("A, A", ""), ("Z", ""),
        ("A dog", ""), ("Paris", ""), ("none", ""), ("", ""), ("3", ""), ("I think B", ""),
        ("C. not D", ""),
    ],
)  # fmt: skip
def test_choices(text, wanted):
    assert choices(text, LETTERS) == frozenset(wanted)


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Option C", "C", True), ("B", "C", False), ("\\text{A, D}", "D", False), ("CA", "AC", True),
        ("A", "AC", False), ("C. because D is wrong", "C", True), (None, "C", False), ("C or D", "C", False),
    ],
)  # fmt: skip
def test_multiple_choice(answer, reference, right):
    assert verdict(MultipleChoice(), answer, reference).is_correct is right


def test_letters_are_a_setting():
    assert verdict(MultipleChoice(letters="ABCDEFGHIJKLMNOP"), "P", "P").is_correct
    with pytest.raises(ValueError, match="letters='a'"):
        MultipleChoice(letters="a")
    with pytest.raises(ValueError, match="threshold must be > 0 and <= 1"):
        TokenF1(threshold=1.5)
