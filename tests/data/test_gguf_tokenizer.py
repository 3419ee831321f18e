"""The tokenizer inside a GGUF file: SmolLM2's real one, and refusals on small files."""

import json
from collections.abc import Sequence
from pathlib import Path

import gguf
import pytest
from helpers.smollm2 import smollm2_or_skip
from helpers.tiny_tokenizers import real_tokenizer_or_skip
from tokenizers import Tokenizer as RustTokenizer

from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf

KINDS = gguf.TokenType
TINY = ["<|end|>", "<tool>", "1", "2", "a", "b", "Ġ", "ab", "[PAD8]", "12"]
TINY_TYPES = [KINDS.CONTROL, KINDS.USER_DEFINED, *[KINDS.NORMAL] * 6, KINDS.UNUSED, KINDS.NORMAL]


def write_vocabulary(
    path: Path,
    *,
    model: str = "gpt2",
    pre: str = "smollm",
    tokens: Sequence[str] = TINY,
    types: Sequence[gguf.TokenType] = TINY_TYPES,
    merges: Sequence[str] = ("a b", "1 2"),
    eos: int = 0,
    **more: int | bool,
) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(model)
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges(merges)
    writer.add_eos_token_id(eos)
    writer.add_eot_token_id(eos)
    for name, value in more.items():
        add = writer.add_bool if isinstance(value, bool) else writer.add_uint32
        add(f"tokenizer.ggml.{name}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_small_file_by_hand(tmp_path):
    tokenizer = tokenizer_from_gguf(write_vocabulary(tmp_path / "tiny.gguf"))
    # SmolLM2 splits digits, so the merge of 1 and 2 is not used.
    assert tokenizer.encode("ab 12<tool>a<|end|>") == [7, 6, 2, 3, 1, 4, 0]
    table = [tokenizer.token_bytes(i) for i in range(10)]
    assert table == [b"", b"<tool>", b"1", b"2", b"a", b"b", b" ", b"ab", b"", b"12"]
    assert (tokenizer.eos_ids, tokenizer.pad_id) == ((0,), 0)


def test_the_pre_tokenizer_decides_what_may_merge(tmp_path):
    tokenizer = tokenizer_from_gguf(write_vocabulary(tmp_path / "tiny.gguf", pre="gpt-2"))
    assert tokenizer.encode("ab12") == [7, 9]


@pytest.mark.parametrize(
    ("pre", "fields", "start"),
    [
        ("smollm", {}, ()),
        ("smollm", {"bos_token_id": 1}, ()),
        ("smollm", {"bos_token_id": 1, "add_bos_token": True}, (1,)),
        ("llama-bpe", {"bos_token_id": 1}, (1,)),
        ("llama-bpe", {"bos_token_id": 1, "add_bos_token": False}, ()),
        ("llama-bpe", {}, ()),
    ],
)
def test_a_prompt_starts_with_bos_where_llama_cpp_puts_one(tmp_path, pre, fields, start):
    tokenizer = tokenizer_from_gguf(write_vocabulary(tmp_path / "tiny.gguf", pre=pre, **fields))
    assert tokenizer.start_ids == start
    assert tokenizer.encode("a") == [4]  # never in the middle
    assert tokenizer.fast("a").input_ids == [*start, 4]


@pytest.mark.parametrize("role", ["bos", "eos", "padding", "eot", "eom"])
def test_a_special_token_outside_the_vocabulary_is_refused(tmp_path, role):
    key = f"{role}_token_id"
    change = {"eos": 10} if role in ("eos", "eot") else {key: 10}
    path = write_vocabulary(tmp_path / "tiny.gguf", **change)
    named = "eos_token_id" if role == "eot" else key
    with pytest.raises(ValueError, match=rf"tiny.gguf': GGUF field .*{named}=10 must be the id"):
        tokenizer_from_gguf(path)


def test_lists_that_do_not_fit_are_refused(tmp_path):
    for change in ({"types": TINY_TYPES[:-1]}, {"merges": ("ab",)}, {"merges": ("a b c",)}):
        path = write_vocabulary(tmp_path / "tiny.gguf", **change)
        with pytest.raises(ValueError, match=r"tiny.gguf': .*convert the model again"):
            tokenizer_from_gguf(path)


@pytest.mark.parametrize(("name", "pre"), [("qwen3", "qwen2"), ("llama3_1", "llama-bpe")])
def test_real_vocabularies_give_the_ids_of_their_own_tokenizer(tmp_path, name, pre):
    file = real_tokenizer_or_skip(name) / "tokenizer.json"
    spec = json.loads(file.read_text(encoding="utf-8"))
    added = {token["id"]: token for token in spec["added_tokens"]}
    by_id = {index: piece for piece, index in spec["model"]["vocab"].items()}
    by_id |= {index: token["content"] for index, token in added.items()}
    types = [
        KINDS.NORMAL
        if index not in added
        else KINDS.CONTROL
        if added[index]["special"]
        else KINDS.USER_DEFINED
        for index in range(len(by_id))
    ]
    pairs = (m if isinstance(m, str) else " ".join(m) for m in spec["model"]["merges"])
    path = write_vocabulary(
        tmp_path / "real.gguf",
        pre=pre,
        tokens=[by_id[index] for index in range(len(by_id))],
        types=types,
        merges=list(pairs),
        eos=max(by_id),
    )
    ours, theirs = tokenizer_from_gguf(path), RustTokenizer.from_file(str(file))
    for text in ["x²  ≤ 3'LL\n\n é", "don't 1234567 \t", "</code>\n", "日本語 😀 Ünïcode\r\n "]:
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "llama"}, "tokenizer.ggml.model='llama' is not supported"),
        ({"pre": "tekken"}, "tokenizer.ggml.pre='tekken' is not supported: only smollm"),
    ],
)
def test_kinds_that_are_not_supported_are_named(tmp_path, change, message):
    path = write_vocabulary(tmp_path / "tiny.gguf", **change)
    with pytest.raises(ValueError, match=message):
        tokenizer_from_gguf(path)


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
