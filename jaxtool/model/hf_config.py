"""Hugging Face's config.json to ModelConfig and back.

Covered: LlamaForCausalLM (Llama 3, SmolLM2), Qwen2ForCausalLM (Qwen2, Qwen2.5, R1-Distill-Qwen) and
Qwen3ForCausalLM, in the spellings of transformers 4 and 5. Not covered: mixtures of experts, sliding
windows, quantised checkpoints, rope scaling by the length of a row: each is refused by name, because a
field that is skipped is another model computed in silence.
"""

from collections.abc import Mapping
from typing import Any

from jaxtool.model.config import ModelConfig
from jaxtool.model.hf_rope import rope_from_hf, rope_to_hf

LLAMA, QWEN2, QWEN3 = "LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"
_MODEL_TYPES = {LLAMA: "llama", QWEN2: "qwen2", QWEN3: "qwen3"}

# Read below.
_USED = {
    "architectures",
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "rope_theta",
    "rope_scaling",
    "rope_parameters",
    "rms_norm_eps",
    "tie_word_embeddings",
}
# Change nothing in the forward pass of a model without dropout.
_NEUTRAL = {
    "_name_or_path",
    "transformers_version",
    "torch_dtype",
    "dtype",
    "use_cache",
    "initializer_range",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
    "max_position_embeddings",
    "attention_dropout",
    "pretraining_tp",
    "tokenizer_class",
    "return_dict",
    "is_llama_config",
    "transformers.js_config",
    "unsloth_fixed",
    "unsloth_version",
    # Without use_sliding_window these two are not read.
    "sliding_window",
    "max_window_layers",
}
# Supported with one value only, which is also what a missing field means.
_ONLY = {
    "hidden_act": "silu",
    "attention_bias": False,
    "mlp_bias": False,
    "use_sliding_window": False,
    "rope_interleaved": False,
    "partial_rotary_factor": 1.0,
    "id2label": {"0": "LABEL_0", "1": "LABEL_1"},
    "label2id": {"LABEL_0": 0, "LABEL_1": 1},
}
_MOST = 2**31  # of a size; sizes beyond are no model's
# What a served model needs and ModelConfig has no use for: kept when a checkpoint is written.
CARRIED = ("max_position_embeddings", "bos_token_id", "eos_token_id", "pad_token_id")


def config_from_hf(fields: Mapping[str, Any], ignored_fields: tuple[str, ...] = ()) -> ModelConfig:
    """ModelConfig of a parsed config.json.

    Args:
      ignored_fields: names of unknown fields that are known to change nothing.

    Raises:
      ValueError: an unsupported architecture or field, or a missing one, by name.
    """
    architecture = (fields.get("architectures") or ["none"])[0]
    if architecture not in _MODEL_TYPES:
        raise ValueError(
            f"architecture {architecture!r} is not supported: use one of {', '.join(_MODEL_TYPES)}"
        )
    _check_fields(fields, ignored_fields)
    d_model, num_heads = (_size(fields, name) for name in ("hidden_size", "num_attention_heads"))
    theta, scaling = rope_from_hf(fields, ignored_fields)
    return ModelConfig(
        vocab_size=_size(fields, "vocab_size"),
        d_model=d_model,
        d_ff=_size(fields, "intermediate_size"),
        num_layers=_size(fields, "num_hidden_layers"),
        num_heads=num_heads,
        num_kv_heads=_size(fields, "num_key_value_heads", num_heads),
        head_dim=_head_dim(fields, architecture, d_model, num_heads),
        rope_theta=theta,
        rope_scaling=scaling,
        rms_norm_eps=_epsilon(fields),
        ties_embeddings=_is_true(fields, "tie_word_embeddings"),
        has_qkv_bias=architecture == QWEN2,
        has_qk_norm=architecture == QWEN3,
    )


def config_to_hf(config: ModelConfig, carried: Mapping[str, Any]) -> dict[str, Any]:
    """The config.json of a checkpoint that transformers, vLLM and SGLang read as this model.

    Args:
      carried: values for `CARRIED`; max_position_embeddings is required, servers size by it.

    Raises:
      ValueError: no Hugging Face architecture has this combination of features.
    """
    if config.has_qk_norm and config.has_qkv_bias:
        raise ValueError("no Hugging Face architecture has both query/key norms and biases")
    unknown = sorted(set(carried) - set(CARRIED))
    if unknown or "max_position_embeddings" not in carried:
        raise ValueError(f"carried needs max_position_embeddings, allows {CARRIED}, got {unknown=}")
    architecture = QWEN3 if config.has_qk_norm else QWEN2 if config.has_qkv_bias else LLAMA
    fields: dict[str, Any] = {
        "architectures": [architecture],
        "model_type": _MODEL_TYPES[architecture],
        "vocab_size": config.vocab_size,
        "hidden_size": config.d_model,
        "intermediate_size": config.d_ff,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.rms_norm_eps,
        "rope_theta": config.rope_theta,
        "tie_word_embeddings": config.ties_embeddings,
        "use_cache": True,
        **{name: value for name, value in carried.items() if value is not None},
    }
    if config.rope_scaling is not None:
        fields["rope_scaling"] = rope_to_hf(config.rope_scaling)
    return fields


def _size(fields: Mapping[str, Any], name: str, missing: int | None = None) -> int:
    value = missing if fields.get(name) is None else fields[name]
    if value is None:
        raise ValueError(f"config.json lacks the field {name!r}")
    if type(value) is not int or not 1 <= value < _MOST:
        raise ValueError(f"config field {name}={value!r} must be an integer from 1 to {_MOST - 1}")
    return value


def _head_dim(fields: Mapping[str, Any], architecture: str, d_model: int, num_heads: int) -> int:
    """Qwen3's class default is 128 whatever the width; the others divide."""
    if fields.get("head_dim") is not None or architecture == QWEN3:
        return _size(fields, "head_dim", 128)
    if d_model % num_heads:
        raise ValueError(
            f"config field hidden_size={d_model} is no multiple of num_attention_heads={num_heads}: "
            "one is wrong, or head_dim is missing"
        )
    return d_model // num_heads


def _epsilon(fields: Mapping[str, Any]) -> float:
    value = fields.get("rms_norm_eps", 1e-6)
    if not isinstance(value, float | int) or not 0 < value < 1:
        raise ValueError(f"config field rms_norm_eps={value!r} must be a number between 0 and 1")
    return float(value)


def _is_true(fields: Mapping[str, Any], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise ValueError(f"config field {name}={value!r} must be true or false")
    return bool(value)


def _check_fields(fields: Mapping[str, Any], ignored_fields: tuple[str, ...]) -> None:
    for name, value in fields.items():
        if name in _USED or name in _NEUTRAL or name in ignored_fields:
            continue
        if name in _ONLY:
            if value is not None and value != _ONLY[name]:
                raise ValueError(
                    f"config field {name}={value!r} is not supported: only {_ONLY[name]!r} is"
                )
        elif name == "layer_types":
            other = sorted(set(value or ()) - {"full_attention"})
            if other:
                raise ValueError(f"config field layer_types holds {other}: not supported")
        elif value:
            raise ValueError(
                f"config field {name}={value!r} is not known: if it changes nothing in the "
                "forward pass, name it in ignored_fields"
            )
