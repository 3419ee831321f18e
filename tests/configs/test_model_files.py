"""The numbers of the model files: parameter counts are those that Hugging Face shows for each model."""

import math

import jax
import pytest

from jaxtool.config import loader
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.model.param_axes import param_shapes
from jaxtool.train.rl_config import RlConfig

MODELS = REPOSITORY_ROOT / "gin_configs" / "models"
COUNTS = {
    "qwen2_5_3b": 3_085_938_688,
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
    files = {path.stem for path in MODELS.glob("*.gin") if "HfDirectory" in path.read_text()}
    assert files == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_of_a_model_file(name):
    files = ["gin_configs/runs/smollm2_products.gin", MODELS / f"{name}.gin"]
    config = loader.load(RlConfig, files=files, params=["MODEL_DIR = 'models/absent'"])
    model = config.policy.model_config()
    shapes = jax.tree.leaves(param_shapes(model))
    assert sum(math.prod(x.shape) for x in shapes) == COUNTS[name]
    assert (model.compute_dtype, model.remat) == ("bfloat16", "block")
