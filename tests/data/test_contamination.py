"""Contamination by hand: which test question a row holds, and which of them stand in a file."""

import random

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.contamination import (
    MOST_COVERED,
    NGRAM_WORDS,
    EvaluationQuestion,
    EvaluationQuestions,
    contaminated,
    covered_words,
)


def test_covered_words_by_hand():
    """Runs of 3: "a b c" and "b c d" are in the row, so 4 of 6 words are covered."""
    assert covered_words("a b c d e f", "x a b c d y", 3) == pytest.approx(4 / 6)
    assert covered_words("a b", "A b.", 3) == 1.0
    assert covered_words("a b", "x a b", 3) == 0.0
    assert covered_words("?!", "?!", 3) == 0.0


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
        shares = [covered_words(e.question, text, NGRAM_WORDS) for e in entries]
        match = known.match(text)
        found += match is not None
        expected = max(shares) if max(shares) > MOST_COVERED else None
        assert (None if match is None else match.covered) == expected
    assert 60 <= found < 200


def problem(name: str, question: str) -> Problem:
    return Problem(problem_id=name, question=question, answer="1")


TEST = [
    problem("t/whole", "one two three four five"),  # 3 trigrams
    problem("t/part", "one two three and other words"),  # 4 trigrams
    problem("t/short", "two words"),
    problem("t/free", "nothing of this is anywhere"),
]
TRAINING = [
    problem("f/0", "First: ONE two, three four."),  # 2 of the trigrams of t/whole, 1 of t/part
    problem("f/1", "three four five."),  # the third of t/whole
    problem("f/2", "Two words!"),
    problem("f/3", "two words more"),  # the short one only as a whole
]


def test_shares_are_of_the_test_questions_ngrams_over_the_whole_file():
    found = contaminated(TRAINING, TEST, n=3)
    assert [(m.test.problem_id, m.found.problem_id, m.share) for m in found] == [
        ("t/short", "f/2", 1.0),
        ("t/whole", "f/0", 1.0),  # two of f/0 and one of f/1; f/0 has most
        ("t/part", "f/0", 0.25),
    ]


def test_a_least_share_leaves_out_what_shares_less():
    assert [m.test.problem_id for m in contaminated(TRAINING, TEST, n=3, least_share=0.5)] == [
        "t/short",
        "t/whole",
    ]
    assert contaminated(TRAINING, TEST[-1:], n=3) == []
    assert contaminated([], TEST, n=3) == []


def test_thirteen_words_are_the_usual_choice():
    words = " ".join(f"w{i}" for i in range(20))
    twelve = problem("f/12", " ".join(words.split()[:12]))
    thirteen = problem("f/13", " ".join(words.split()[:13]))
    assert contaminated([twelve], [problem("t", words)]) == []
    [match] = contaminated([thirteen], [problem("t", words)])
    assert match.share == 1 / 8  # of 20 - 13 + 1


@pytest.mark.parametrize("fields", [{"n": 0}, {"least_share": 1.5}, {"least_share": -0.1}])
def test_a_rule_that_is_none_is_refused(fields: dict):
    with pytest.raises(ValueError, match="must be 1 or more"):
        contaminated(TRAINING, TEST, **fields)
