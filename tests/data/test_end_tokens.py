"""End tokens of every file that transformers reads; values that name no token are refused by file."""

import json

import pytest
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.data.end_tokens import end_ids_of
from jaxtool.data.hf_tokenizer import tokenizer_from_dir

VOCABULARY = {"<|endoftext|>": 0, "<|eot|>": 1, "a": 2}


def write(folder, name, **fields):
    (folder / name).write_text(json.dumps(fields))


def test_ends_of_all_files_are_united(tmp_path):
    assert end_ids_of(tmp_path, VOCABULARY) == []
    write(tmp_path, "config.json", eos_token_id=2)
    assert end_ids_of(tmp_path, VOCABULARY) == [2]
    write(tmp_path, "generation_config.json", eos_token_id=[0, 1])
    assert end_ids_of(tmp_path, VOCABULARY) == [0, 1, 2]
    write(tmp_path, "tokenizer_config.json", eos_token={"content": "<|eot|>", "lstrip": False})
    write(tmp_path, "special_tokens_map.json", eos_token="<|endoftext|>")
    assert end_ids_of(tmp_path, VOCABULARY) == [1, 0, 0, 1, 2]


@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_end_that_only_an_id_names_is_enough(tmp_path, name):
    path = write_byte_level(tmp_path)
    config = json.loads((path / "tokenizer_config.json").read_text())
    del config["eos_token"], config["pad_token"]
    write(path, "tokenizer_config.json", **config)
    write(path, name, eos_token_id=[1, 0])
    tokenizer = tokenizer_from_dir(path)
    assert (tokenizer.eos_ids, tokenizer.pad_id) == ((1, 0), 1)


@pytest.mark.parametrize(
    "value",
    ["1", -1, 3, 10**12, True, 2.0, [], [1, None], [[1]], {"id": 1}, [1, True], float("nan")],
    ids=repr,
)
@pytest.mark.parametrize("name", ["config.json", "generation_config.json"])
def test_an_id_of_no_token_is_refused_with_file_key_and_value(tmp_path, name, value):
    write(tmp_path, name, eos_token_id=value)
    with pytest.raises(ValueError, match="must be the id of a token, or a list") as error:
        end_ids_of(tmp_path, VOCABULARY)
    assert f"{str(tmp_path / name)!r}: eos_token_id={value!r}" in str(error.value)


def test_null_is_no_end_in_config_json_and_refused_where_it_would_end_nothing(tmp_path):
    write(tmp_path, "config.json", eos_token_id=None)
    write(tmp_path, "tokenizer_config.json", eos_token=None)
    write(tmp_path, "generation_config.json", temperature=1.0)
    assert end_ids_of(tmp_path, VOCABULARY) == []
    write(tmp_path, "generation_config.json", eos_token_id=None)
    with pytest.raises(ValueError, match=r"generation_config.json': eos_token_id=None must be"):
        end_ids_of(tmp_path, VOCABULARY)


@pytest.mark.parametrize("value", [5, True, "", ["<|eot|>"], {"text": "<|eot|>"}, {"content": 1}])
@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_an_end_that_is_no_text_is_refused(tmp_path, name, value):
    write(tmp_path, name, eos_token=value)
    with pytest.raises(ValueError, match=rf"{name}': eos_token=.* must be the text of a token"):
        end_ids_of(tmp_path, VOCABULARY)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json"])
def test_an_end_that_transformers_would_add_to_the_vocabulary_is_refused(tmp_path, name):
    path = write_byte_level(tmp_path)
    fields = json.loads((path / name).read_text()) if (path / name).is_file() else {}
    write(path, name, **fields | {"eos_token": "</s>"})
    with pytest.raises(ValueError, match=rf"{name}': eos_token='</s>' is not in the vocabulary"):
        tokenizer_from_dir(path)
    added = {"302": {"content": "</s>", "special": True}}
    config = json.loads((path / "tokenizer_config.json").read_text())
    write(path, "tokenizer_config.json", **config | {"added_tokens_decoder": added})
    assert tokenizer_from_dir(path).eos_ids[-1] in (2, 302)


BROKEN = {
    b"": "is empty: copy or download it again",
    b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n": "run `git lfs pull`",
    b'{"eos_token": ': "is not JSON, or is cut short",
    b"\xff\xfe{}": "is not JSON, or is cut short",
    b"[" * 100_000: "is not JSON, or is cut short",
    b"[1]": "must hold an object",
}


@pytest.mark.parametrize("content", BROKEN, ids=BROKEN.values())
@pytest.mark.parametrize(
    "name",
    [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
        "config.json",
        "added_tokens.json",
    ],
)
def test_a_broken_file_is_named_with_what_to_do(tmp_path, name, content):
    path = write_byte_level(tmp_path)
    (path / name).write_bytes(content)
    with pytest.raises(ValueError, match=BROKEN[content]) as error:
        tokenizer_from_dir(path)
    assert str(error.value).startswith(repr(str(path / name)))
