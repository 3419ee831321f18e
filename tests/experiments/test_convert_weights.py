"""A converted model is the same model, with its tokenizer."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.smollm2 import smollm2_or_skip
from helpers.tiny_models import FAMILIES, random_adapter, random_params
from helpers.tiny_tokenizers import write_byte_level

from experiments import convert_weights
from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.model.gguf_weights import load_gguf
from jaxtool.model.hf_weights import load_hf, read_config, save_hf
from jaxtool.model.lora import LoraBase, LoraConfig, merged
from jaxtool.model.peft import save_peft
from jaxtool.parallel.axis_rules import single_device


def convert(*arguments: object) -> dict:
    return convert_weights.convert(convert_weights.parse([str(a) for a in arguments]))


def test_a_directory_becomes_the_same_directory(tmp_path):
    config, source, target = FAMILIES["qwen3"], tmp_path / "source", tmp_path / "target"
    params = random_params(config)
    carried = {"max_position_embeddings": 64, "eos_token_id": [2, 0]}
    save_hf(source, config, params, carried=carried, dtype="float32")
    write_byte_level(source)
    shard_gib = 20_000 / 2**30
    written = convert(
        *("--source", source, "--target", target, "--dtype", "float32"),
        *("--max_shard_gib", shard_gib),
    )
    assert written["parameters"] == sum(x.size for x in jax.tree.leaves(params))
    assert written["bytes"] == sum((target / name).stat().st_size for name in written["files"])
    assert {path.name for path in target.iterdir()} == set(written["files"])
    assert read_config(target) == read_config(source)
    loaded_config, loaded = load_hf(target, sharding=single_device())
    assert loaded_config == config
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(x, y)
    text = "<code>print(1)</code>"
    assert tokenizer_from_dir(target).encode(text) == tokenizer_from_dir(source).encode(text)


def test_an_adapter_is_merged_in_and_another_models_is_refused(tmp_path):
    config, lora = FAMILIES["qwen3"], LoraConfig(rank=2, targets=("k", "o", "gate"))
    base = LoraBase(params=random_params(config), config=lora)
    adapter = random_adapter(config, lora)
    source, folder, target = (tmp_path / name for name in ("source", "adapter", "target"))
    save_hf(source, config, base.params, carried={"max_position_embeddings": 64}, dtype="float32")
    save_peft(folder, adapter, lora, base_model=str(source))
    arguments = ("--source", source, "--adapter", folder, "--dtype", "float32", "--target")
    assert convert(*arguments, target)["adapter"] == str(folder)
    wanted = merged(base.with_adapter(adapter), single_device())
    _, loaded = load_hf(target, sharding=single_device())
    for x, y, before in zip(*map(jax.tree.leaves, (loaded, wanted, base.params)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)
        assert np.array_equal(x, before) == np.array_equal(y, before)
    save_peft(folder, random_adapter(FAMILIES["llama"], lora), lora, base_model=None)
    with pytest.raises(ValueError, match="this adapter is of another model"):
        convert(*arguments, tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.real_model
def test_smollm2_becomes_a_directory(tmp_path):
    path = smollm2_or_skip()
    written = convert("--source", "smollm2", "--target", tmp_path / "hf")
    assert (written["architecture"], written["parameters"]) == ("LlamaForCausalLM", 134_515_008)
    fields = read_config(tmp_path / "hf")
    assert (fields["max_position_embeddings"], fields["eos_token_id"]) == (8192, 2)
    config, params = load_gguf(path, sharding=single_device())
    loaded_config, loaded = load_hf(tmp_path / "hf", sharding=single_device())
    assert loaded_config == config
    for x, y in zip(jax.tree.leaves(params), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(x.astype(jnp.bfloat16).astype(jnp.float32), y)
    ours, theirs = tokenizer_from_gguf(path), tokenizer_from_dir(tmp_path / "hf")
    chat = ours.render_chat([{"role": "user", "content": "12 apples </code>\n é😀"}])
    assert theirs.render_chat([{"role": "user", "content": "12 apples </code>\n é😀"}]) == chat
    assert theirs.encode(chat) == ours.encode(chat)
    assert (theirs.eos_ids, theirs.pad_id) == (ours.eos_ids, ours.pad_id)


def test_the_json_is_what_was_printed(tmp_path, monkeypatch, capsys):
    config, source = FAMILIES["llama"], tmp_path / "source"
    save_hf(source, config, random_params(config), carried={"max_position_embeddings": 64})
    arguments = ["convert_weights", "--source", str(source), "--target", str(tmp_path / "target")]
    monkeypatch.setattr("sys.argv", [*arguments, "--json", str(tmp_path / "out.json")])
    convert_weights.main()
    written = json.loads((tmp_path / "out.json").read_text())
    printed = capsys.readouterr().out
    assert written["files"] == ["model.safetensors", "config.json"]
    for name in written:
        assert name in printed
