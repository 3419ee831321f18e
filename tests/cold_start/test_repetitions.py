"""Repeated questions and rows, questions that are nearly the same, questions of evaluation sets."""

import random

import pytest

from jaxtool.cold_start.checking import contamination, repetitions
from jaxtool.cold_start.contamination import (
    EvaluationQuestion,
    EvaluationQuestions,
    covered_words,
)
from jaxtool.cold_start.near_duplicates import jaccard, near_duplicates
from jaxtool.cold_start.words import ngrams, words_of


def reasons(rows, **settings):
    faults = repetitions(rows, **({"per_question": 1, "near": None} | settings))
    return ["" if fault is None else fault.reason for fault in faults]


def test_words_are_folded_and_signs_count():
    assert words_of("Let X = 3.\n Straße") == ("let", "x", "=", "3", ".", "strasse")
    assert words_of("3+4") != words_of("3*4")
    assert ngrams(("a", "b", "c"), 2) == [("a", "b"), ("b", "c")]
    assert ngrams(("a",), 2) == [("a",)]
    assert ngrams((), 2) == []


def test_jaccard_by_hand():
    """Two of four in common."""
    assert jaccard(frozenset("abc"), frozenset("bcd")) == 0.5
    assert jaccard(frozenset(), frozenset()) == 1.0


def test_near_duplicates_are_those_that_comparing_all_pairs_finds():
    draw = random.Random(0)
    texts = [
        " ".join(draw.choice("abcd") for _ in range(draw.randrange(4, 14))) for _ in range(300)
    ]
    for threshold in (0.3, 0.5, 0.8, 1.0):
        sets = [frozenset(ngrams(words_of(text), 5)) for text in texts]
        kept: list[int] = []
        expected: list[int | None] = []
        for i, own in enumerate(sets):
            twin = next((j for j in kept if jaccard(own, sets[j]) >= threshold), None)
            expected.append(twin)
            kept += [i] if twin is None else []
        assert near_duplicates(texts, threshold=threshold) == expected
        assert any(twin is not None for twin in expected)


def test_rows_and_questions_that_were_there_before():
    rows = [
        ("Q one?", "a", "f:1"),
        ("q two?", "a", "f:2"),
        ("Q  one?", "b", "f:3"),
        ("Q one?", "a", "f:4"),
    ]
    assert reasons(rows) == ["", "", "same_question", "same_row"]
    assert reasons(rows, per_question=2) == ["", "", "", "same_row"]


def test_a_question_with_one_other_word_at_its_end_is_nearly_the_same():
    long = "In a village there are twelve houses with four windows each and a church with nine more"
    rows = [
        (f"{long} today?", "a", "f:1"),
        (f"{long} tomorrow?", "b", "f:2"),
        ("Else?", "c", "f:3"),
    ]
    assert reasons(rows, near=0.7) == ["", "near_question", ""]
    assert reasons(rows, near=0.95) == ["", "", ""]
    [_, fault, _] = repetitions(rows, per_question=1, near=0.7)
    assert "f:1" in str(fault)


def test_covered_words_by_hand():
    """Runs of 3: "a b c" and "b c d" are in the row, so 4 of 6 words are covered."""
    assert covered_words(tuple("abcdef"), tuple("xabcdy"), 3) == pytest.approx(4 / 6)
    assert covered_words(tuple("ab"), tuple("ab"), 3) == 1.0
    assert covered_words(tuple("ab"), tuple("xab"), 3) == 0.0


def test_a_question_that_holds_an_evaluation_question_is_named_with_it():
    asked = "Find the number of ordered pairs of integers such that their product is 2024."
    known = EvaluationQuestions(
        [
            EvaluationQuestion(where="aime.jsonl:1", question="What is 1+1?"),
            EvaluationQuestion(where="aime.jsonl:2", question=asked),
        ]
    )
    assert len(known) == 2
    fault = contamination(f"Here is a puzzle. {asked.upper()} Good luck!", known)
    assert fault is not None
    assert fault.reason == "in_evaluation"
    assert "100% of the words of aime.jsonl:2" in str(fault)
    assert (
        contamination("Take the number of ordered pairs of integers and add one to it.", known)
        is None
    )
    assert contamination("What is 1+1? And what else is there to be said?", known) is None
    assert contamination("what is 1 + 1 ?", known) is not None
    assert contamination("Anything", EvaluationQuestions([])) is None
