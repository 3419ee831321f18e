"""Questions that are in an evaluation set, by shared runs of words."""

import random

import pytest

from jaxtool.data.contamination import (
    MOST_COVERED,
    NGRAM_WORDS,
    EvaluationQuestion,
    EvaluationQuestions,
    covered_words,
)
from jaxtool.data.question_words import words_of


def test_covered_words_by_hand():
    """Runs of 3: "a b c" and "b c d" are in the row, so 4 of 6 words are covered."""
    assert covered_words(tuple("abcdef"), tuple("xabcdy"), 3) == pytest.approx(4 / 6)
    assert covered_words(tuple("ab"), tuple("ab"), 3) == 1.0
    assert covered_words(tuple("ab"), tuple("xab"), 3) == 0.0


def test_the_question_that_is_covered_most_is_named():
    asked = "Find the number of ordered pairs of integers such that their product is 2024."
    known = EvaluationQuestions(
        [
            EvaluationQuestion(where="aime.jsonl:1", question="What is 1+1?"),
            EvaluationQuestion(where="aime.jsonl:2", question=asked + " And their sum is even?"),
            EvaluationQuestion(where="aime.jsonl:3", question=asked),
        ]
    )
    assert len(known) == 3
    match = known.match(f"Here is a puzzle. {asked.upper()} Good luck!")
    assert match is not None
    assert (match.where, match.covered) == ("aime.jsonl:3", 1.0)
    assert match.shared == "find the number of ordered pairs of integers"
    assert known.match("Take the number of ordered pairs of integers and add one to it.") is None
    assert known.match("What is 1+1? And what else is there to be said?") is None
    assert known.match("what is 1 + 1 ?") is not None
    assert EvaluationQuestions([]).match("Anything") is None


def test_half_of_the_words_are_not_enough():
    """Runs of 8 words: 8 of the evaluation question's 16 words, and then 9."""
    words = [f"w{n}" for n in range(16)]
    known = EvaluationQuestions([EvaluationQuestion(where="t:1", question=" ".join(words))])
    assert known.match(" ".join([*words[:8], "else"])) is None
    match = known.match(" ".join([*words[:9], "else"]))
    assert match is not None
    assert match.covered == 9 / 16


def test_the_index_says_what_comparing_with_every_question_says():
    draw = random.Random(0)
    texts = [" ".join(draw.choice("ab") for _ in range(draw.randrange(4, 24))) for _ in range(200)]
    entries = [EvaluationQuestion(where=str(i), question=text) for i, text in enumerate(texts[:60])]
    known = EvaluationQuestions(entries)
    found = 0
    for text in texts:
        shares = [covered_words(words_of(e.question), words_of(text), NGRAM_WORDS) for e in entries]
        match = known.match(text)
        found += match is not None
        expected = max(shares) if max(shares) > MOST_COVERED else None
        assert (None if match is None else match.covered) == expected
    assert 60 <= found < 200
