"""Words and runs of them by hand."""

import pytest

from jaxtool.data.question_words import runs_of, words_of


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Find $x^2$, please.", ("find", "x", "2", "please")),
        ("A_b  C\n3.5", ("a", "b", "c", "3", "5")),
        ("ﬁve Ⅷ", ("five", "viii")),  # NFKC
        ("Été, Straße", ("été", "strasse")),
        ("$$ -- $$", ()),
    ],
)
def test_words(text: str, words: tuple[str, ...]):
    assert words_of(text) == words


def test_runs_by_hand():
    assert runs_of("a b, c d", 3) == [("a", "b", "c"), ("b", "c", "d")]
    assert runs_of("a b c", 3) == [("a", "b", "c")]
    assert runs_of("?!", 3) == []


def test_a_shorter_text_is_one_run_with_its_signs():
    assert runs_of("What is 3 + 4 ?", 8) == [("whatis3+4",)]
    assert runs_of("what is 3+4", 8) == runs_of("What is 3 + 4 ?", 8)
    assert runs_of("what is 3*4", 8) != runs_of("what is 3+4", 8)
