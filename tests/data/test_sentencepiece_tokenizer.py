"""Raw SentencePiece models: control pieces, no dummy space, templates, refusals."""

from pathlib import Path

import pytest
from helpers.tiny_tokenizers import write_sentencepiece
from sentencepiece import SentencePieceProcessor

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


def test_pieces_of_the_user_decode_as_sentencepiece_decodes_them(tmp_path):
    """Marks of a word's beginning are spaces; what reads like a byte and is none is text."""
    user = ["▁▁", "▁if", "<0x41>", "<tool>", "a▁b"]
    path = write_sentencepiece(tmp_path / "user.model", user_pieces=user, byte_fallback=False)
    tokenizer = SentencePieceTokenizer(path=str(path))
    sp = SentencePieceProcessor(model_file=str(path))
    first = sp.piece_to_id("a")
    for piece in user:
        token_id = sp.piece_to_id(piece)
        theirs = sp.decode([first, token_id])
        assert "a" + tokenizer.token_bytes(token_id).decode() == theirs, piece
    assert tokenizer.token_bytes(sp.piece_to_id("<0x41>")) == b"<0x41>"


def test_a_prompt_starts_with_bos_where_the_model_has_one(tmp_path, model):
    assert SentencePieceTokenizer(path=model).start_ids == (1,)
    path = write_sentencepiece(tmp_path / "t5.model", bos_id=-1)
    assert SentencePieceTokenizer(path=str(path)).start_ids == ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty: copy or download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "run `git lfs pull`"),
        (b"<html>not found</html>", "no SentencePiece model, or is cut short"),
        (None, "no SentencePiece model, or is cut short"),
    ],
    ids=["empty", "pointer", "page", "truncated"],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path, model, content, message):
    path = tmp_path / "broken.model"
    path.write_bytes(Path(model).read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=rf"broken.model' .*{message}"):
        SentencePieceTokenizer(path=str(path))
