"""The run of 80k tokens: YaRN reaches its rows, they are cut evenly, and its decoder fits a host by arithmetic."""

import json

import jax
import pytest

from jaxtool.config import loader
from jaxtool.decode.memory import plan_memory
from jaxtool.learn.state import check_row_tokens
from jaxtool.model.config import YarnScaling
from jaxtool.model.context import context_tokens
from jaxtool.model.hf_config import config_to_hf
from jaxtool.model.hf_rope import rope_to_hf
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.train.rl_config import RlConfig

RUN = loader.REPOSITORY_ROOT / "gin_configs" / "runs" / "long_qwen3_4b_v6e_64.gin"
LIMIT = {"max_position_embeddings": 40960}  # of the published config.json
GIB = 2**30


@pytest.fixture(scope="module")
def config() -> RlConfig:
    return loader.load(RlConfig, files=[RUN])


@pytest.fixture(scope="module")
def model(config):
    return config.policy.model_config()


def test_yarn_reaches_the_rows_and_no_further(config, model):
    scaling = model.rope_scaling
    assert scaling == YarnScaling(factor=2.5, original_max_position=32768)
    assert scaling.factor * scaling.original_max_position == config.pack.row_tokens == 81_920
    assert config.engine.max_tokens == config.pack.row_tokens
    assert config.rollout.max_response_tokens == config.engine.max_tokens - 2048


def test_rows_are_cut_into_whole_blocks_of_the_kernel(config):
    assert config.mesh.sizes(64) == (1, 4, 4, 4)
    assert config.pack.row_tokens % (1024 * config.mesh.context) == 0
    assert config.grpo.micro_batch_rows % 4 == 0  # data x fsdp
    mesh = make_mesh(MeshConfig(fsdp=1, context=4, tensor=2))
    check_row_tokens(config.pack.row_tokens, Sharding(mesh, config.axes))


def test_the_decoder_fits_a_host(config, model):
    """By hand, of a chip: 12 rows · 81,920 tokens · 36 layers · 2 · 2 heads · (128 + 4) bytes = 17.40 GiB."""
    mesh = make_mesh(MeshConfig(fsdp=1, tensor=4), jax.devices()[:4])
    sharding = Sharding(mesh, axis_rules.decode(config.axes))
    decoder = config.engine.numerics.model(model)
    free = (31.24 - 0.71) * GIB  # parameters and AdamW's moments, cut over 64 chips, stay
    plan = plan_memory(decoder, config.engine, sharding, longest_prompt=2048, free=free)
    rows = 12 * 81_920 * 36 * 2 * 2 * (128 + 4) / GIB
    assert rows == pytest.approx(17.40, abs=0.01)
    assert plan.config.decode_rows * plan.per_row / 4 / GIB == pytest.approx(rows, abs=0.01)
    assert plan.total / 4 / GIB == pytest.approx(18.9, abs=0.2)  # of 24.7, nine tenths of 27.5


def test_a_directory_without_yarn_is_refused_before_its_weights_are_read(model, config, tmp_path):
    directory = tmp_path / "model"
    directory.mkdir()
    fields = config_to_hf(model, LIMIT)
    scaling = fields.pop("rope_scaling")
    assert scaling == rope_to_hf(model.rope_scaling)
    assert f'"rope_scaling": {json.dumps(scaling)}' in RUN.read_text()
    (directory / "config.json").write_text(json.dumps(fields))
    policy = loader.load(RlConfig, files=[RUN], params=[f"MODEL_DIR = '{directory}'"]).policy
    with pytest.raises(ValueError, match=r"another model than .*: rope_scaling=None instead of"):
        policy.model_config()
    (directory / "config.json").write_text(json.dumps(fields | {"rope_scaling": scaling}))
    assert policy.model_config() == model
    assert context_tokens(policy) == 81_920
