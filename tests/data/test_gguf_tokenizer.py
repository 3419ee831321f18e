"""The tokenizer inside a GGUF file: SmolLM2's real one, and refusals on small files."""

import gguf
import pytest
from helpers.smollm2 import smollm2_or_skip

from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf


def write_vocabulary(path, *, model: str = "gpt2", pre: str = "smollm") -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    tokens = ["<|end|>", "<tool>", "1", "2", "a", "b", "Ġ", "ab", "[PAD8]"]
    kinds = gguf.TokenType
    types = [kinds.CONTROL, kinds.USER_DEFINED, *[kinds.NORMAL] * 6, kinds.UNUSED]
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(["a b", "1 2"] if "12" in tokens else ["a b"])
    writer.add_eos_token_id(0)
    writer.add_eot_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_small_file_by_hand(tmp_path):
    write_vocabulary(tmp_path / "tiny.gguf")
    tokenizer = tokenizer_from_gguf(tmp_path / "tiny.gguf")
    assert tokenizer.encode("ab 12<tool>a<|end|>") == [7, 6, 2, 3, 1, 4, 0]
    table = [tokenizer.token_bytes(i) for i in range(9)]
    assert table == [b"", b"<tool>", b"1", b"2", b"a", b"b", b" ", b"ab", b""]
    assert (tokenizer.eos_ids, tokenizer.pad_id) == ((0,), 0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model='llama' is not supported"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre='tekken' is not supported: only smollm"),
    ],
)
def test_kinds_that_are_not_supported_are_named(tmp_path, change, message):
    write_vocabulary(tmp_path / "tiny.gguf", **change)
    with pytest.raises(ValueError, match=message):
        tokenizer_from_gguf(tmp_path / "tiny.gguf")


@pytest.mark.real_model
def test_smollm2():
    tokenizer = tokenizer_from_gguf(smollm2_or_skip())
    assert (tokenizer.vocab_size, tokenizer.eos_ids, tokenizer.pad_id) == (49152, (2,), 2)
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("</code>\n")] == [
        b"</",
        b"code",
        b">",
        b"\n",
    ]
    assert [tokenizer.token_bytes(i) for i in tokenizer.encode("x 123")] == [
        b"x",
        b" ",
        b"1",
        b"2",
        b"3",
    ]
    # Tag-like control tokens of this model's pretraining are no text.
    assert tokenizer.token_bytes(tokenizer.encode("<jupyter_code>")[0]) == b""
    chat = tokenizer.render_chat([{"role": "user", "content": "Hi"}])
    assert chat == (
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
        "<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
