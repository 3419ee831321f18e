"""Exact text from ids: trained-on-the-spot tokenizers always, real ones where they are installed."""

import codecs
import unicodedata

import pytest
from helpers.smollm2 import smollm2_or_skip
from helpers.tiny_tokenizers import (
    mistral_files_or_skip,
    real_tokenizer_or_skip,
    write_byte_level,
    write_metaspace,
    write_sentencepiece,
)
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.sentencepiece_tokenizer import SentencePieceTokenizer
from jaxtool.data.tokenizer import Tokenizer, check_has_text, decode

TAGS = [
    "<code>",
    "</code>",
    "<interpreter>",
    "</interpreter>",
    "<answer>",
    "</answer>",
    "```python",
]
KINDS = ["byte_level", "metaspace", "sentencepiece", "smollm2", "qwen3", "llama3_1", "mistral"]


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request, tmp_path_factory) -> Tokenizer:
    path = tmp_path_factory.mktemp("tokenizer")
    match request.param:
        case "byte_level":
            return tokenizer_from_dir(write_byte_level(path))
        case "metaspace":
            return tokenizer_from_dir(write_metaspace(path))
        case "sentencepiece":
            return SentencePieceTokenizer(path=str(write_sentencepiece(path / "tiny.model")))
        case "smollm2":
            return tokenizer_from_gguf(smollm2_or_skip())
        case "mistral":
            return SentencePieceTokenizer(path=str(mistral_files_or_skip()[0]))
        case name:
            return tokenizer_from_dir(real_tokenizer_or_skip(name))


@pytest.fixture(scope="module")
def alphabet(tokenizer: Tokenizer) -> set[int]:
    """Bytes of which the tokenizer can write every text."""
    pieces = (tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size))
    single = {piece[0] for piece in pieces if len(piece) == 1}
    # SentencePiece writes most ASCII characters as pieces and the rest by byte fallback.
    assert len(single) > 230
    return single


# Qwen normalises to NFC and SentencePiece reads a literal ▁ as a space: both before any id is made.
texts = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="▁\0"), max_size=40
).map(lambda text: unicodedata.normalize("NFC", text))


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(text=texts)
def test_text_streams_out_of_single_tokens_exactly(tokenizer, alphabet, text):
    # SmolLM2 drops what it has no byte for: six control characters and Unicode's planes 4 to 11.
    assume(set(text.encode()) <= alphabet)
    stream, seen = codecs.getincrementaldecoder("utf-8")("strict"), ""
    for token_id in tokenizer.encode(text):
        seen += stream.decode(tokenizer.token_bytes(token_id))
        assert text.startswith(seen)  # a character split over tokens waits for its last byte
    assert seen + stream.decode(b"", final=True) == text


@pytest.mark.parametrize(
    "text", ["héllo wörld 日本語 😀👩‍🚀", " two  spaces ", "\n\n\tx = 1\r\n", "1234567"]
)
def test_difficult_texts_survive(tokenizer, text):
    assert decode(tokenizer, tokenizer.encode(text)) == text


def test_the_tags_of_a_protocol_survive_however_they_are_cut(tokenizer):
    check_has_text(tokenizer, TAGS)
    for context in ("{}", "{}\n", "x{}\n\n", " {}.", "print(1)\n{}\n<interpreter>"):
        text = context.format("</code>")
        assert decode(tokenizer, tokenizer.encode(text)) == text


def test_ids_stay_inside_the_vocabulary_and_control_tokens_add_no_text(tokenizer):
    assert 0 <= tokenizer.pad_id < tokenizer.vocab_size
    for token_id in tokenizer.eos_ids:
        assert 0 <= token_id < tokenizer.vocab_size
        assert tokenizer.token_bytes(token_id) == b""
    assert tokenizer.token_bytes(tokenizer.vocab_size + 5) == b""  # padding of an embedding table
    assert tokenizer.token_bytes(tokenizer.vocab_size - 1) is not None
    with pytest.raises(ValueError, match="token_id=-1 is negative"):
        tokenizer.token_bytes(-1)


@pytest.mark.parametrize(
    ("name", "text", "pieces"),
    [
        # The reason why a stop tag is looked for in bytes: `>\n` is one token, or two.
        ("qwen3", "</code>\n", [b"</", b"code", b">\n"]),
        ("llama3_1", "</code>\n", [b"</", b"code", b">\n"]),
        ("qwen3", "12345", [b"1", b"2", b"3", b"4", b"5"]),
        ("llama3_1", "12345", [b"123", b"45"]),
    ],
)
def test_real_byte_level_pieces(name, text, pieces):
    tokenizer = tokenizer_from_dir(real_tokenizer_or_skip(name))
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode(text)] == pieces


@pytest.mark.parametrize("name", ["qwen3", "llama3_1"])
def test_ids_are_those_of_the_file_itself(name):
    """transformers rebuilds some tokenizers; the file is what the model was trained with."""
    path = real_tokenizer_or_skip(name)
    plain, ours = RustTokenizer.from_file(str(path / "tokenizer.json")), tokenizer_from_dir(path)
    for text in ["<|im_start|>user\nHi<|im_end|>", "x²  ≤ 3'll\n\n é", "don't 123 \t<think>"]:
        assert ours.encode(text) == plain.encode(text, add_special_tokens=False).ids


def test_qwen3_declares_tags_as_text_and_control_as_nothing():
    tokenizer = tokenizer_from_dir(real_tokenizer_or_skip("qwen3"))
    ids = tokenizer.encode("<|im_start|><think></tool_call><|im_end|>")
    assert [tokenizer.token_bytes(i) for i in ids] == [b"", b"<think>", b"</tool_call>", b""]
    assert tokenizer.eos_ids == (151645,)
    chat = tokenizer.render_chat([{"role": "user", "content": "Hi"}])
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_every_mistral_model_reads_its_control_pieces():
    for path in mistral_files_or_skip():
        tokenizer = SentencePieceTokenizer(path=str(path))
        ids = tokenizer.encode("<s>▁x</s>")
        assert [tokenizer.token_bytes(i) for i in ids][0::2] == [b"", b""], path.name
        assert tokenizer.vocab_size in (32000, 32768)
