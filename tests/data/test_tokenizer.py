"""The small exact tokenizer."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxtool.data.arithmetic import arithmetic_tokenizer
from jaxtool.data.tokenizer import VocabularyTokenizer, check_has_text, decode, written_bytes


def test_longest_pieces_win_and_unknown_characters_are_marked():
    tokenizer = VocabularyTokenizer(("a", "ab", "b", "?"))
    assert tokenizer.encode("abbaé") == [3, 4, 2, 5]
    assert decode(tokenizer, [3, 4, 0, 1, 2]) == "abba"
    assert (tokenizer.vocab_size, tokenizer.eos_ids, tokenizer.pad_id) == (6, (1,), 0)


@given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126)))
def test_printable_ascii_survives_a_round_trip(text):
    tokenizer = arithmetic_tokenizer()
    assert decode(tokenizer, tokenizer.encode(text)) == text


def test_ids_that_pad_a_policys_vocabulary_write_nothing():
    tokenizer = VocabularyTokenizer(("a", "?"))
    assert written_bytes(tokenizer, 2) == b"a"
    assert written_bytes(tokenizer, tokenizer.vocab_size) == b""
    with pytest.raises(ValueError, match="outside the vocabulary of 4"):
        tokenizer.token_bytes(4)


def test_a_text_that_cannot_be_written_is_named():
    with pytest.raises(ValueError, match=r"cannot write '<b>' .*gives '\?b\?'"):
        check_has_text(VocabularyTokenizer(("b", "?")), ["b", "<b>"])


def test_a_vocabulary_that_is_none_is_refused():
    with pytest.raises(ValueError, match="a piece twice"):
        VocabularyTokenizer(("a", "a", "?"))
    with pytest.raises(ValueError, match="lacks the unknown piece"):
        VocabularyTokenizer(("a",))
