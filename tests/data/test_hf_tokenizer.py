"""Directories of fast tokenizers: special tokens, end tokens, chat templates, refusals."""

import json

import pytest
from helpers.tiny_tokenizers import write_byte_level, write_metaspace
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import models

from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.data.tokenizer import decode


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return write_byte_level(tmp_path_factory.mktemp("tokenizers") / "byte_level")


def test_special_tags_are_text_and_control_tokens_are_not(directory):
    tokenizer = tokenizer_from_dir(directory)
    ids = tokenizer.encode("<|im_start|><code>x</code><tool>né e<|im_end|>")
    expected = [b"", b"<code>", b"x", b"</code>", b"<tool>", "né e".encode(), b""]
    assert [tokenizer.token_bytes(i) for i in ids] == expected
    strict = tokenizer_from_dir(directory, text_tokens=())
    assert strict.token_bytes(ids[1]) == b""


def test_chat_is_rendered_up_to_the_reply(directory):
    tokenizer = tokenizer_from_dir(directory)
    chat = tokenizer.render_chat(
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    )
    assert chat == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert decode(tokenizer, tokenizer.encode(chat)) == "system\nBe brief.\nuser\nHi\nassistant\n"


def test_end_tokens_of_the_generation_config_count(tmp_path):
    path = write_byte_level(tmp_path)
    assert tokenizer_from_dir(path).eos_ids == (2,)
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, 0]}))
    assert tokenizer_from_dir(path).eos_ids == (2, 0)


def test_template_variables_reach_the_template(tmp_path):
    path = write_byte_level(tmp_path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    config["chat_template"] = "{{ messages[0]['content'] }}|{{ enable_thinking }}"
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    tokenizer = tokenizer_from_dir(path, template_variables=(("enable_thinking", False),))
    assert tokenizer.render_chat([{"role": "user", "content": "Hi"}]) == "Hi|False"


def test_no_dummy_space_and_byte_fallback_in_llama2_style(tmp_path):
    tokenizer = tokenizer_from_dir(write_metaspace(tmp_path))
    pieces = [tokenizer.token_bytes(i) for i in tokenizer.encode("the the é")]
    assert pieces == [b"the", b" the", b" ", b"\xc3", b"\xa9"]


def test_settings_for_batches_in_the_file_are_not_applied(tmp_path):
    path = write_byte_level(tmp_path)
    rust = RustTokenizer.from_file(str(path / "tokenizer.json"))
    rust.enable_truncation(2)
    rust.enable_padding(length=8)
    rust.save(str(path / "tokenizer.json"))
    tokenizer = tokenizer_from_dir(path)
    assert decode(tokenizer, tokenizer.encode("quick brown fox")) == "quick brown fox"


def test_what_cannot_be_used_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in .*: it needs one of"):
        tokenizer_from_dir(tmp_path)
    path = write_byte_level(tmp_path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    (path / "tokenizer_config.json").write_text(
        json.dumps({k: v for k, v in config.items() if k not in ("eos_token", "chat_template")})
    )
    with pytest.raises(ValueError, match="names no end token"):
        tokenizer_from_dir(path)
    (path / "tokenizer_config.json").write_text(json.dumps(config | {"chat_template": None}))
    with pytest.raises(ValueError, match="has no chat template"):
        tokenizer_from_dir(path).render_chat([{"role": "user", "content": "Hi"}])
    (path / "tokenizer_config.json").write_text(json.dumps(config))
    words = RustTokenizer(models.WordLevel({"<|im_end|>": 0, "<|endoftext|>": 1}, "<|im_end|>"))
    words.save(str(path / "tokenizer.json"))
    with pytest.raises(ValueError, match=r"decoder None is not supported"):
        tokenizer_from_dir(path)
