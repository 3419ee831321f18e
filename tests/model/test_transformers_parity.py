"""Logits equal those of transformers on torch, for models that it wrote and for ones that we wrote."""

from typing import Any

import jax
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, VOCAB, full_logits, random_params, random_tokens

from jaxtool.model.hf_weights import load_hf, save_hf
from jaxtool.parallel.axis_rules import single_device

torch = pytest.importorskip("torch", reason="torch is not installed: pip install -e '.[parity]'")

from transformers import (  # noqa: E402
    AutoModelForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

pytestmark = pytest.mark.parity

SHAPE: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN_ROPE = {
    "rope_type": "yarn",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 32,
}
MODELS = {
    "llama": (LlamaForCausalLM, LlamaConfig, {"rope_parameters": LLAMA3_ROPE}),
    "llama_head_dim": (LlamaForCausalLM, LlamaConfig, {"head_dim": 10, "rms_norm_eps": 1e-5}),
    "qwen2": (Qwen2ForCausalLM, Qwen2Config, {}),
    "qwen3": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 12}),
    "qwen3_yarn": (Qwen3ForCausalLM, Qwen3Config, {"head_dim": 12, "rope_parameters": YARN_ROPE}),
}


def torch_logits(model: Any, tokens: Any) -> np.ndarray:
    with torch.no_grad():
        return model.eval()(torch.tensor(np.asarray(tokens), dtype=torch.long)).logits.numpy()


def our_logits(path: Any, tokens: Any) -> np.ndarray:
    config, params = load_hf(path, sharding=single_device())
    forward = jax.jit(full_logits, static_argnums=(1, 3))
    return np.asarray(forward(params, config, tokens, single_device()))


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_that_transformers_wrote(tmp_path, name, tied):
    model_class, config_class, more = MODELS[name]
    torch.manual_seed(0)
    model = model_class(config_class(**SHAPE, **more, tie_word_embeddings=tied))
    for parameter in model.parameters():  # biases and norms too, which start at 0 and 1
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(tmp_path, max_shard_size="20KB")
    tokens = random_tokens(2, 64)  # beyond the original length of the scaled RoPE
    expected = torch_logits(model, tokens)
    assert np.abs(expected).max() > 1
    np.testing.assert_allclose(our_logits(tmp_path, tokens), expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_that_we_wrote(tmp_path, family):
    config = FAMILIES[family]
    params = random_params(config)
    carried = {"max_position_embeddings": 256, "eos_token_id": 2}
    save_hf(tmp_path, config, params, carried=carried, dtype="float32", max_shard_bytes=20_000)
    model, report = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, output_loading_info=True
    )
    assert not any(report.values()), report
    tokens = random_tokens(2, 100)
    expected = torch_logits(model, tokens)
    np.testing.assert_allclose(our_logits(tmp_path, tokens), expected, atol=2e-5, rtol=1e-5)
