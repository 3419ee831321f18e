"""Hugging Face directories: out and in again is bitwise, and wrong ones are named."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, random_params
from safetensors.numpy import load_file, save_file

from jaxtool.model.hf_weights import load_hf, save_hf
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

CARRIED = {"max_position_embeddings": 64}


def assert_equal_trees(x, y) -> None:
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("family", FAMILIES)
def test_round_trip_is_bitwise(tmp_path, family):
    config = FAMILIES[family]
    params = random_params(config)
    files = save_hf(tmp_path, config, params, carried=CARRIED, dtype="float32")
    assert [file.name for file in files] == ["model.safetensors", "config.json"]
    loaded_config, loaded = load_hf(tmp_path, sharding=single_device())
    assert loaded_config == config
    assert_equal_trees(loaded, params)


def test_shards_with_an_index_round_trip_between_meshes(tmp_path):
    config = FAMILIES["qwen3"]
    params = random_params(config)
    save_hf(tmp_path, config, params, carried=CARRIED, dtype="float32", max_shard_bytes=20_000)
    shards = sorted(tmp_path.glob("model-*.safetensors"))
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert len(shards) > 2
    assert shards[0].name == f"model-00001-of-{len(shards):05}.safetensors"
    assert index["metadata"]["total_size"] == sum(x.nbytes for x in jax.tree.leaves(params))
    for name, file in index["weight_map"].items():
        assert name in load_file(tmp_path / file)
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    _, loaded = load_hf(tmp_path, sharding=sharding)
    assert len(loaded["embedding"].sharding.device_set) == 8
    assert_equal_trees(loaded, params)


def test_bfloat16_rounds_once(tmp_path):
    config = FAMILIES["qwen2"]
    params = random_params(config)
    save_hf(tmp_path, config, params, carried=CARRIED)
    _, loaded = load_hf(tmp_path, sharding=single_device())
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), params)
    assert_equal_trees(loaded, rounded)
    assert load_file(tmp_path / "model.safetensors")["model.norm.weight"].dtype == jnp.bfloat16


def test_a_tied_head_that_is_stored_must_be_the_embedding(tmp_path):
    config = FAMILIES["qwen2"]
    params = random_params(config)
    save_hf(tmp_path, config, params, carried=CARRIED, dtype="float32")
    file = tmp_path / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"].copy()}, file)
    assert_equal_trees(load_hf(tmp_path, sharding=single_device())[1], params)
    save_file(tensors | {"lm_head.weight": 2 * tensors["model.embed_tokens.weight"]}, file)
    with pytest.raises(
        ValueError, match=r"'lm_head.weight' differs .* tie_word_embeddings to false"
    ):
        load_hf(tmp_path, sharding=single_device())


def test_wrong_directories_are_named(tmp_path):
    def refuses(error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=message):
            load_hf(tmp_path, sharding=single_device())

    refuses(FileNotFoundError, "no config.json in")
    config = FAMILIES["llama"]
    save_hf(tmp_path, config, random_params(config), carried=CARRIED)
    file, config_file = tmp_path / "model.safetensors", tmp_path / "config.json"
    fields = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(fields | {"intermediate_size": 72}))
    refuses(ValueError, r"'model.layers.0.mlp.down_proj.weight' has shape \(32, 64\), .*\(32, 72\)")
    config_file.write_text(json.dumps(fields | {"num_hidden_layers": 3}))
    refuses(ValueError, r"lack tensor 'model.layers.2\.")
    config_file.write_text(json.dumps(fields | {"num_hidden_layers": 1}))
    refuses(ValueError, r"hold 9 tensors .* first 'model.layers.1.input_layernorm.weight'")
    config_file.write_text(json.dumps(fields))
    tensors = load_file(file)
    norm = tensors["model.norm.weight"].astype(np.int8)
    save_file(tensors | {"model.norm.weight": norm}, file)
    refuses(ValueError, "'model.norm.weight' has dtype I8")
    file.unlink()
    refuses(FileNotFoundError, "no weight file .*model.safetensors")


def test_a_mesh_that_does_not_divide_is_refused_before_reading(tmp_path):
    config = FAMILIES["llama"]
    save_hf(tmp_path, config, random_params(config), carried=CARRIED)
    with pytest.raises(ValueError, match="num_kv_heads=2 is no multiple of the mesh's tensor=4"):
        load_hf(tmp_path, sharding=Sharding(make_mesh(MeshConfig(fsdp=2, tensor=4))))


def test_saving_refuses_foreign_parameters_and_full_directories(tmp_path):
    config = FAMILIES["llama"]
    params = random_params(config)
    wider = dataclasses.replace(config, d_ff=72)
    with pytest.raises(ValueError, match="'layers/mlp/down/kernel' has shape"):
        save_hf(tmp_path, wider, params, carried=CARRIED)
    with pytest.raises(ValueError, match="carried needs max_position_embeddings"):
        save_hf(tmp_path, config, params, carried={})
    save_hf(tmp_path, config, params, carried=CARRIED)
    with pytest.raises(ValueError, match="already holds weights"):
        save_hf(tmp_path, config, params, carried=CARRIED)


def test_weights_may_be_read_by_whoever_may_read_their_config(tmp_path):
    config = FAMILIES["llama"]
    files = save_hf(tmp_path, config, random_params(config), carried=CARRIED)
    assert len({file.stat().st_mode for file in files}) == 1
