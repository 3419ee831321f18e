"""Words made comparable as SQuAD does it, and where we keep what SQuAD loses."""

import pytest

from jaxtool.judges.word_match import f1, is_words, normalized


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The Chief of Protocol.", "chief of protocol"),
        ("  an   Apple\n", "apple"),
        ("\\text{Evelyn.}", "evelyn"),
        ("\\textbf{\\text{New York}}", "new york"),
        ("Cesar’s toothbrush", "cesars toothbrush"),
        ("Cesar's toothbrush", "cesars toothbrush"),
        ("U.S.A.", "usa"),
        ("ＮＡＳＡ", "nasa"),
        ("Straße", "strasse"),
        ("$1,000", "1000"),
        ("1,234,567 people", "1234567 people"),
        ("3.5", "3.5"),
        (".5", ".5"),
        ("-5", "-5"),
        ("−5", "-5"),
        ("3/5", "3 5"),  # SQuAD: 35
        ("1984–1990", "1984 1990"),
        ("12:30", "12 30"),
        ("10\\%", "10"),
        ("The", "the"),  # nothing else would be left
        ("A", "a"),
        ("+", "+"),
        ("   ", ""),
    ],
)
def test_normalized(text, words):
    assert normalized(text) == words


def test_f1_by_hand():
    """Answer of 4 words, reference of 2, 2 in common: precision 1/2, recall 1, F1 = 2/3."""
    assert f1("in New York City", "New York") == pytest.approx(2 / 3)
    assert f1("Protocol of Chief", "Chief of Protocol") == 1.0  # the same bag of words
    assert f1("Boston", "New York") == 0.0
    assert f1("", "New York") == 0.0
    assert f1("New New York", "New York") == pytest.approx(0.8)  # precision 2/3, recall 1


def test_yes_and_no_are_whole_answers():
    """HotpotQA's rule: "yes it is" against "yes" counts nothing."""
    assert f1("yes it is", "yes") == 0.0
    assert f1("no", "No.") == 1.0


@pytest.mark.parametrize(
    "text",
    [
        "Chief of Protocol",
        "\\text{Evelyn}",
        "Yes",
        "\\text{even}",
        "New York",
        "ellipse",
        "Mrs. Hilt",
    ],
)
def test_words(text):
    assert is_words(text)


@pytest.mark.parametrize(
    "text",
    ["x+1", "\\frac{1}{2}", "\\pi", "xy", "A", "x \\in [1,2)", "2 apples", "\\sin x", "sqrt(2)", "pi",
     "p - q", "(3, \\frac{\\pi}{2})", "y = 2x", "oo", "\\text{(C)}", "6 - 5i", "\\cot x", "infinity"],
)  # fmt: skip
def test_mathematics_is_no_words(text):
    assert not is_words(text)
