"""Tokens as text while they come: whole characters, writers' colours, framed control tokens."""

from helpers.tiny_tokenizers import write_byte_level

from jaxtool.core.types import Origin
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.rollout.token_text import CONTROL_STYLE, STYLES, TokenText


def test_a_character_waits_for_its_last_byte_and_control_tokens_are_framed(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path))
    writer = TokenText(tokenizer)
    first, second = tokenizer.encode("é")
    assert writer.take([first], Origin.POLICY).plain == ""
    text = writer.take([second, *tokenizer.encode("<|im_end|>")], Origin.POLICY)
    assert text.plain == "é⟨|im_end|⟩"
    assert [span.style for span in text.spans] == [STYLES[Origin.POLICY], CONTROL_STYLE]
    assert writer.end().plain == ""


def test_half_a_character_ends_where_another_writes(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path))
    writer = TokenText(tokenizer)
    writer.take(tokenizer.encode("é")[:1], Origin.POLICY)
    text = writer.take(tokenizer.encode("a"), Origin.TOOL)
    assert text.plain == "\ufffda"
    assert [span.style for span in text.spans] == [STYLES[Origin.POLICY], STYLES[Origin.TOOL]]


def test_half_a_character_ends_before_a_control_token(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path))
    ids = [tokenizer.encode("é")[0], *tokenizer.encode("<|im_end|>a")]
    assert TokenText(tokenizer).take(ids, Origin.POLICY).plain == "\ufffd⟨|im_end|⟩a"


def test_ids_beyond_the_vocabulary_are_seen(tmp_path):
    tokenizer = tokenizer_from_dir(write_byte_level(tmp_path))
    text = TokenText(tokenizer).take([tokenizer.vocab_size + 3], Origin.POLICY)
    assert text.plain == f"⟨no token {tokenizer.vocab_size + 3}⟩"
