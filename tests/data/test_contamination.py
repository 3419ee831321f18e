"""n-grams by hand: what of a test set stands in a file, by which rule."""

import pytest

from jaxtool.core.types import Problem
from jaxtool.data.contamination import contaminated, ngrams_of, words_of


def problem(name: str, question: str) -> Problem:
    return Problem(problem_id=name, question=question, answer="1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Find $x^2$, please.", ["find", "x", "2", "please"]),
        ("A_b  C\n3.5", ["a", "b", "c", "3", "5"]),
        ("ﬁve Ⅷ", ["five", "viii"]),  # NFKC
        ("Été", ["été"]),
        ("$$ -- $$", []),
    ],
)
def test_words(text: str, words: list[str]):
    assert words_of(text) == words


def test_ngrams_by_hand():
    assert ngrams_of("a b c d", 3) == {("a", "b", "c"), ("b", "c", "d")}
    assert ngrams_of("a b", 3) == {("a", "b")}  # shorter: as a whole
    assert ngrams_of("?!", 3) == set()


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
