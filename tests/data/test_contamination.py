"""Questions that are in an evaluation set, by shared runs of words."""

import pytest

from jaxtool.data.contamination import EvaluationQuestion, EvaluationQuestions, covered_words


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
