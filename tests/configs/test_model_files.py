"""The numbers of the model files: parameter counts are those that Hugging Face shows for each model."""

import math

import jax
import pytest

from jaxtool.config import loader
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_shapes
from jaxtool.train.rl_config import RlConfig

MODELS = REPOSITORY_ROOT / "gin_configs" / "models"
COUNTS = {
    "qwen2_5_3b": 3_085_938_688,
    "qwen2_5_3b_instruct": 3_085_938_688,
    "qwen2_5_7b": 7_615_616_512,
    "qwen2_5_7b_instruct": 7_615_616_512,
    "qwen2_5_32b_instruct": 32_763_876_352,
    "qwen2_5_math_1_5b": 1_543_714_304,
    "qwen2_5_math_7b": 7_615_616_512,
    "qwen3_4b": 4_022_468_096,
    "qwen3_8b": 8_190_735_360,
    "llama3_1_8b": 8_030_261_248,
    "r1_distill_qwen_32b": 32_763_876_352,
}


def test_every_file_of_a_hugging_face_model_is_counted():
    texts = {path.stem: path.read_text() for path in MODELS.glob("*.gin")}
    assert {name for name, text in texts.items() if "MODEL_DIR" in text} == set(COUNTS)


def model_of(run: str, name: str) -> ModelConfig:
    """The model file over a run file."""
    files = [f"gin_configs/runs/{run}.gin", MODELS / f"{name}.gin"]
    config = loader.load(RlConfig, files=files, params=["MODEL_DIR = 'models/absent'"])
    return config.policy.model_config()


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_a_model_file(name):
    model = model_of("smollm2_products", name)
    shapes = jax.tree.leaves(param_shapes(model))
    assert sum(math.prod(x.shape) for x in shapes) == COUNTS[name]
    assert (model.compute_dtype, model.remat) == ("bfloat16", "block")


@pytest.mark.parametrize("name", [name for name in COUNTS if name != "qwen2_5_7b"])
def test_a_model_file_leaves_nothing_of_the_model_that_it_replaces(name):
    """The search runs have Qwen2.5-7B; they are run with others by an overlay."""
    assert model_of("search_r1_grpo", name) == model_of("smollm2_products", name)
