"""A converted model is the same model, with its tokenizer."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.smollm2 import smollm2_or_skip
from helpers.tiny_files import write_gguf
from helpers.tiny_models import FAMILIES, random_adapter, random_params
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.cli import convert_weights
from jaxtool.data.gguf_tokenizer import tokenizer_from_gguf
from jaxtool.data.hf_tokenizer import tokenizer_from_dir
from jaxtool.model.gguf_weights import load_gguf
from jaxtool.model.hf_weights import load_hf, read_config, save_hf
from jaxtool.model.lora import FrozenPolicy, LoraConfig, merged
from jaxtool.model.peft import save_peft
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy


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
    base = FrozenPolicy(params=random_params(config), config=lora)
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """(what a run started from, the policy that it left): every parameter is one more."""
    folder = tmp_path_factory.mktemp("run")
    config = FAMILIES["qwen3"]
    carried = {"max_position_embeddings": 64, "eos_token_id": [2, 0]}
    save_hf(folder / "base", config, random_params(config), carried=carried, dtype="float32")
    write_byte_level(folder / "base")
    _, params = load_hf(folder / "base", sharding=single_device())
    # What a run changes in the config is no part of config.json.
    run_config = dataclasses.replace(config, remat="block", attention_block=8)
    save_policy(folder / "policy", jax.tree.map(lambda x: x + 1, params), run_config)
    return folder / "base", folder / "policy"


@pytest.mark.parametrize("like", ["directory", "gguf"])
def test_a_trained_policy_leaves_as_a_directory_with_what_its_source_carried(
    like, trained, tmp_path
):
    base, policy = trained
    target = tmp_path / "target"
    expected = (64, [2, 0])
    if like == "gguf":
        config, params = load_hf(base, sharding=single_device())
        base, expected = tmp_path / "base.gguf", (128, None)
        write_gguf(base, "qwen3", config, params)
    arguments = ("--source", policy, "--like", base, "--target", target, "--dtype", "float32")
    if like == "gguf":  # of a file without a tokenizer the weights are all that can be compared
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(convert_weights, "_write_tokenizer", lambda name, folder: [])
            written = convert(*arguments)
    else:
        written = convert(*arguments)
    assert (written["source"], written["like"]) == (str(policy), str(base))
    assert written["architecture"] == "Qwen3ForCausalLM"
    assert {path.name for path in target.iterdir()} == set(written["files"])
    fields = read_config(target)
    assert (fields["max_position_embeddings"], fields.get("eos_token_id")) == expected
    loaded_config, loaded = load_hf(target, sharding=single_device())
    assert loaded_config == FAMILIES["qwen3"]
    _, saved = SavedPolicy(path=str(policy)).load(single_device(), 0)
    for x, y in zip(jax.tree.leaves(saved), jax.tree.leaves(loaded), strict=True):
        np.testing.assert_array_equal(x, y)
    before = random_params(loaded_config)["final_norm"]
    np.testing.assert_array_equal(loaded["final_norm"], before + 1)
    if like == "directory":
        text = "<code>print(1)</code>"
        assert tokenizer_from_dir(target).encode(text) == tokenizer_from_dir(base).encode(text)


def test_a_policy_is_refused_without_what_it_came_from(trained, tmp_path):
    base, policy = trained
    target = tmp_path / "target"
    with pytest.raises(ValueError, match=r"holds no tokenizer and no maximum length: .* by --like"):
        convert("--source", policy, "--target", target)
    both = ("--source", policy, "--like", base, "--target", target)
    with pytest.raises(ValueError, match="--adapter does not go with a run's policy"):
        convert(*both, "--adapter", tmp_path)
    with pytest.raises(ValueError, match=r"--like is for the policy of a run"):
        convert("--source", base, "--like", base, "--target", target)
    (tmp_path / "bare").mkdir()
    (tmp_path / "bare" / "config.json").write_text((base / "config.json").read_text())
    with pytest.raises(FileNotFoundError, match=r"no tokenizer in --like '.*bare'"):
        convert("--source", policy, "--like", tmp_path / "bare", "--target", target)
    assert not target.exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"intermediate_size": 128}, "intermediate_size=64 instead of 128"),
        ({"rope_theta": 5.0}, r"rope_theta=1000000.0 instead of 5.0"),
        (
            {"architectures": ["LlamaForCausalLM"]},
            r"architectures=\['Qwen3.*'\] instead of \['Llama",
        ),
    ],
)
def test_a_policy_of_another_model_is_refused_by_its_field(change, message, trained, tmp_path):
    base, policy = trained
    other = tmp_path / "other"
    other.mkdir()
    (other / "config.json").write_text(json.dumps(read_config(base) | change))
    with pytest.raises(ValueError, match=message):
        convert("--source", policy, "--like", other, "--target", tmp_path / "target")
    assert not (tmp_path / "target").exists()


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
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")  # main sets it: put back what was there
    monkeypatch.setattr("sys.argv", [*arguments, "--json", str(tmp_path / "out.json")])
    convert_weights.main()
    written = json.loads((tmp_path / "out.json").read_text())
    printed = capsys.readouterr().out
    assert written["files"] == ["model.safetensors", "config.json"]
    for name in written:
        assert name in printed
