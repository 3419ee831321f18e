"""config.json of real models, both spellings, and refusals by name."""

import json

import pytest
from helpers.tiny_models import FAMILIES

from jaxtool.model.config import RopeScaling
from jaxtool.model.hf_config import config_from_hf, config_to_hf

# As published; fields that matter to us are unchanged.
SMOLLM2 = """{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
"attention_dropout": 0.0, "bos_token_id": 1, "eos_token_id": 2, "hidden_act": "silu",
"hidden_size": 576, "initializer_range": 0.041666666666666664, "intermediate_size": 1536,
"is_llama_config": true, "max_position_embeddings": 8192, "mlp_bias": false,
"model_type": "llama", "num_attention_heads": 9, "num_hidden_layers": 30,
"num_key_value_heads": 3, "pad_token_id": 2, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
"rope_interleaved": false, "rope_scaling": null, "rope_theta": 100000,
"tie_word_embeddings": true, "torch_dtype": "bfloat16",
"transformers.js_config": {"kv_cache_dtype": {"q4f16": "float16", "fp16": "float16"}},
"transformers_version": "4.42.3", "use_cache": true, "vocab_size": 49152}"""

QWEN25_7B = """{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0,
"bos_token_id": 151643, "eos_token_id": 151645, "hidden_act": "silu", "hidden_size": 3584,
"initializer_range": 0.02, "intermediate_size": 18944, "max_position_embeddings": 32768,
"max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28,
"num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06,
"rope_theta": 1000000.0, "sliding_window": 131072, "tie_word_embeddings": false,
"torch_dtype": "bfloat16", "transformers_version": "4.43.1", "use_cache": true,
"use_sliding_window": false, "vocab_size": 152064}"""

QWEN3_06B = """{"architectures": ["Qwen3ForCausalLM"], "attention_bias": false,
"attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645, "head_dim": 128,
"hidden_act": "silu", "hidden_size": 1024, "initializer_range": 0.02, "intermediate_size": 3072,
"max_position_embeddings": 40960, "max_window_layers": 28, "model_type": "qwen3",
"num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
"rms_norm_eps": 1e-06, "rope_scaling": null, "rope_theta": 1000000, "sliding_window": null,
"tie_word_embeddings": true, "torch_dtype": "bfloat16", "transformers_version": "4.51.0",
"use_cache": true, "use_sliding_window": false, "vocab_size": 151936}"""

LLAMA31_8B = """{"architectures": ["LlamaForCausalLM"], "attention_bias": false,
"attention_dropout": 0.0, "bos_token_id": 128000, "eos_token_id": [128001, 128008, 128009],
"hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02,
"intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": false,
"model_type": "llama", "num_attention_heads": 32, "num_hidden_layers": 32,
"num_key_value_heads": 8, "pretraining_tp": 1, "rms_norm_eps": 1e-05,
"rope_scaling": {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
"original_max_position_embeddings": 8192, "rope_type": "llama3"}, "rope_theta": 500000.0,
"tie_word_embeddings": false, "torch_dtype": "bfloat16", "transformers_version": "4.42.3",
"use_cache": true, "vocab_size": 128256}"""

LLAMA31_SCALING = RopeScaling(
    factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
)


def test_published_configs_are_read():
    smollm2 = config_from_hf(json.loads(SMOLLM2))
    assert (smollm2.head_dim, smollm2.rope_theta, smollm2.ties_embeddings) == (64, 1e5, True)
    qwen25 = config_from_hf(json.loads(QWEN25_7B))
    assert (qwen25.head_dim, qwen25.has_qkv_bias, qwen25.ties_embeddings) == (128, True, False)
    qwen3 = config_from_hf(json.loads(QWEN3_06B))
    assert (qwen3.head_dim, qwen3.has_qk_norm, qwen3.d_model) == (128, True, 1024)
    llama = config_from_hf(json.loads(LLAMA31_8B))
    assert (llama.rope_theta, llama.rope_scaling) == (5e5, LLAMA31_SCALING)


def test_both_spellings_of_rope_are_the_same_model():
    old = json.loads(LLAMA31_8B)
    theta, scaling = old["rope_theta"], old["rope_scaling"]
    new = {key: value for key, value in old.items() if key not in ("rope_theta", "rope_scaling")}
    new["rope_parameters"] = {**scaling, "rope_theta": theta}
    assert config_from_hf(new) == config_from_hf(old)
    plain = json.loads(SMOLLM2)
    del plain["rope_theta"], plain["rope_scaling"]
    plain["rope_parameters"] = {"rope_theta": 100000.0, "rope_type": "default"}
    assert config_from_hf(plain) == config_from_hf(json.loads(SMOLLM2))


@pytest.mark.parametrize("family", FAMILIES)
def test_writing_and_reading_gives_the_same_config(family):
    config = FAMILIES[family]
    fields = config_to_hf(config, {"max_position_embeddings": 64, "eos_token_id": 2})
    assert config_from_hf(json.loads(json.dumps(fields))) == config
    assert fields["eos_token_id"] == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["GemmaForCausalLM"]}, "'GemmaForCausalLM' is not supported"),
        ({"hidden_act": "gelu"}, "hidden_act='gelu' is not supported: only 'silu'"),
        ({"attention_bias": True}, "attention_bias=True is not supported"),
        ({"use_sliding_window": True}, "use_sliding_window=True is not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "sliding_attention"),
        ({"rope_scaling": {"rope_type": "dynamic", "factor": 4.0}}, "rope_type 'dynamic'"),
        ({"rope_scaling": {"type": "llama3", "factor": 4.0}}, "llama3 needs exactly"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantization_config=.*not known"),
        ({"logit_softcap": 30.0}, "logit_softcap=30.0 is not known.*ignored_fields"),
    ],
)
def test_an_unsupported_field_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_hf(json.loads(SMOLLM2) | change)


def test_unknown_fields_pass_when_off_or_named():
    fields = json.loads(SMOLLM2) | {"logit_softcap": None, "made_by": "me"}
    with pytest.raises(ValueError, match="made_by"):
        config_from_hf(fields)
    assert config_from_hf(fields, ("made_by",)) == config_from_hf(json.loads(SMOLLM2))


def test_a_missing_field_is_named():
    fields = json.loads(SMOLLM2)
    del fields["intermediate_size"]
    with pytest.raises(ValueError, match="lacks the field 'intermediate_size'"):
        config_from_hf(fields)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**12}, "hidden_size=1000000000000 must be an integer from 1"),
        ({"vocab_size": -1}, "vocab_size=-1 must be an integer from 1"),
        ({"num_attention_heads": 0}, "num_attention_heads=0 must be an integer"),
        ({"num_hidden_layers": "30"}, "num_hidden_layers='30' must be an integer"),
        ({"intermediate_size": 1536.0}, "intermediate_size=1536.0 must be an integer"),
        ({"num_key_value_heads": True}, "num_key_value_heads=True must be an integer"),
        ({"head_dim": 0}, "head_dim=0 must be an integer"),
        ({"hidden_size": 577}, "hidden_size=577 is no multiple of num_attention_heads=9"),
        ({"rms_norm_eps": float("nan")}, "rms_norm_eps=nan must be a number"),
        ({"rms_norm_eps": "1e-5"}, "rms_norm_eps='1e-5' must be a number"),
        ({"tie_word_embeddings": "false"}, "tie_word_embeddings='false' must be true or false"),
        ({"auto_map": {"AutoModelForCausalLM": "evil.Model"}}, "auto_map=.* is not known"),
    ],
)
def test_a_value_of_no_model_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        config_from_hf(json.loads(SMOLLM2) | change)
