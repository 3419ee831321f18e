"""Queries, by hand."""

import pytest
from helpers.behaviour_answers import answered, ran, searched

from jaxtool.behaviour import searching
from jaxtool.behaviour.answers import judged

ANSWERS = [
    answered(
        searched("capital of France", "Doc 1(Title: France) Paris is the capital."),
        searched("The capital of France?", "Doc 1(Title: France) Paris is the capital."),
        references=("Paris",),
        final_answer="paris",
        problem="a",
    ),
    answered(
        searched("river"),
        references=("Seine",),
        final_answer="Rhine",
        is_correct=False,
        problem="b",
    ),
    answered(searched("population", "Two million"), references=("Lyon",), final_answer="Lyon"),
    answered(ran("print(1)"), references=("Paris",)),
    answered(searched("river"), searched("river"), is_lost=True),
]

EVIDENCE = [searching.evidence(answer) for answer in judged(ANSWERS)]


def test_queries_and_answers_that_search():
    assert searching.queries_per_answer(ANSWERS) == 4 / 4
    assert searching.search_ratio(ANSWERS) == 3 / 4
    assert searching.words_per_query(ANSWERS) == (3 + 4 + 1 + 1) / 4


def test_a_query_is_repeated_whatever_its_case_and_articles():
    assert searching.repeated_ratio(ANSWERS) == 1 / 4
    assert searching.empty_ratio(EVIDENCE) == 1 / 4
    assert searching.repeated_ratio([answered(ran("x"))]) is None


def test_support_parts_reading_from_guessing():
    """Found: Paris, right. Not found: Seine, wrong, and Lyon, right. The final answer stands in one's passages."""
    found = searching.support(EVIDENCE)
    assert found.answers == 3
    assert found.found == pytest.approx(1 / 3)
    assert found.right_if_found == 1.0
    assert found.right_if_not_found == 1 / 2
    assert found.grounded == pytest.approx(1 / 3)


def test_words_are_found_whole_and_yes_is_left_out():
    part = answered(searched("q", "Parisian cafes"), references=("Paris",))
    assert searching.support([searching.evidence(part)]).found == 0.0
    either = answered(searched("q", "yes no"), references=("yes",))
    assert searching.support([searching.evidence(either)]).answers == 0
    assert searching.support([searching.evidence(either)]).found is None


def test_passages_are_what_the_policy_was_shown():
    """The observation was cut before the answer."""
    answer = answered(searched("q", "long text, then Paris"), references=("Paris",))
    cut = [
        part if part.author == "policy" else type(part)(author="tool", text="long text", tokens=5)
        for part in answer.parts
    ]
    found = searching.evidence(answer.__class__(**{**vars(answer), "parts": tuple(cut)}))
    assert found.found is False
