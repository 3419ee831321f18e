"""Raw SentencePiece models: control pieces, no dummy space, templates, refusals."""

import pytest
from helpers.tiny_tokenizers import write_sentencepiece

from jaxtool.data.sentencepiece_tokenizer import SentencePieceTokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_sentencepiece(tmp_path_factory.mktemp("sentencepiece") / "tiny.model"))


def test_control_pieces_are_found_and_user_pieces_are_text(model):
    tokenizer = SentencePieceTokenizer(path=model)
    ids = tokenizer.encode("<s>[INST]a</code> é</s>")
    expected = [b"", b"", b"a", b"</code>", b" ", b"\xc3", b"\xa9", b""]
    assert [tokenizer.token_bytes(i) for i in ids] == expected
    assert (ids[0], ids[-1]) == (1, tokenizer.eos_ids[0])
    assert tokenizer.token_bytes(0) == b""  # the unknown piece


def test_chat_needs_a_template(model):
    messages = [{"role": "user", "content": "Hi"}]
    with pytest.raises(ValueError, match="has no chat template: pass chat_template"):
        SentencePieceTokenizer(path=model).render_chat(messages)
    template = "{{ bos_token }}{% for m in messages %}[INST] {{ m['content'] }}{% endfor %}"
    tokenizer = SentencePieceTokenizer(path=model, chat_template=template)
    assert tokenizer.render_chat(messages) == "<s>[INST] Hi"


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no SentencePiece model at .*absent\.model"):
        SentencePieceTokenizer(path=str(tmp_path / "absent.model"))
