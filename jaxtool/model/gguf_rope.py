"""Rope scaling as GGUF files write it: fields for linear and YaRN, a tensor of divisors for Llama 3.

YaRN in llama.cpp multiplies cos and sin by attn_factor · (0.1 ln(factor) + 1) and rounds the borders
outwards, which is transformers' default. Not covered: longrope, mscales (yarn_log_multiplier), an
attn_factor or yarn_ext_factor other than 1: each is refused by field and value.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxtool.model.config import LinearScaling, RopeScaling, Scaling, YarnScaling
from jaxtool.model.rope import rotary_frequencies

ROPE_SCALING = "rope.scaling."
# The scalings of Llama 3.1 and 3.2: a GGUF keeps only the divisors they give.
_LLAMA3_FACTORS = (8.0, 32.0)
_ONE = ("attn_factor", "yarn_attn_factor", "yarn_ext_factor")  # supported with this value only
_LENGTH = "original_context_length"
_BORDERS = {"yarn_beta_fast": "beta_fast", "yarn_beta_slow": "beta_slow"}
_KNOWN: dict[str, set[str]] = {
    "none": set(),
    "linear": {"factor", _LENGTH},  # llama.cpp reads the length for YaRN alone
    "yarn": {"factor", _LENGTH, *_BORDERS},
}


def scaling_from_gguf(prefix: str, fields: Mapping[str, Any]) -> Scaling | None:
    """The scaling of a file's fields.

    Args:
      prefix: of the fields' names in the file, for messages: "qwen3.".
      fields: without it: {"rope.scaling.type": "yarn", "context_length": 131072, ...}.

    Raises:
      ValueError: a type, field or value that is not supported or does not fit, by name and value.
    """
    name = prefix + ROPE_SCALING
    found = {
        key.removeprefix(ROPE_SCALING): value
        for key, value in fields.items()
        if key.startswith(ROPE_SCALING)
    }
    found.pop("finetuned", None)  # whether the model was trained so: not read by the computation
    kind = found.pop("type", None) or "none"
    if kind not in _KNOWN:
        raise ValueError(
            f"GGUF field {name}type={kind!r} is not supported: 'linear' and 'yarn' are"
        )
    for key, value in found.items():
        if value == 1.0 if key in _ONE else key in _KNOWN[kind] or not value:
            continue
        of_type = ": only 1.0 is" if key in _ONE else f" with {name}type={kind!r}"
        raise ValueError(f"GGUF field {name + key}={value!r} is not supported{of_type}")
    if kind == "none":
        return None
    factor = shortest(_number(f"{name}factor", found.get("factor"), 1.0))
    if kind == "linear":
        return LinearScaling(factor=factor)
    length = found.get(_LENGTH) or fields.get("context_length")
    if type(length) is not int or length < 1:
        raise ValueError(f"GGUF field {name + _LENGTH}={length!r} must be a positive integer")
    borders = {
        ours: shortest(_number(name + theirs, found[theirs], 1e-3))
        for theirs, ours in _BORDERS.items()
        if theirs in found
    }
    return YarnScaling(factor=factor, original_max_position=length, **borders, truncates=True)


def scaling_of_divisors(
    divisors: np.ndarray, theta: float, head_dim: int, tensor: str
) -> RopeScaling:
    """The Llama 3 scaling whose divisors [H/2] the file keeps in `tensor`."""
    for factor in _LLAMA3_FACTORS:
        scaling = RopeScaling(
            factor=factor, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=8192
        )
        plain = np.array(rotary_frequencies(head_dim, theta, None))
        scaled = np.array(rotary_frequencies(head_dim, theta, scaling))
        if divisors.shape == plain.shape and np.allclose(plain / scaled, divisors, rtol=1e-5):
            return scaling
    raise ValueError(
        f"tensor {tensor!r} (largest divisor {divisors.max():g}) is no Llama 3 rope scaling "
        f"with factor in {_LLAMA3_FACTORS}, low 1, high 4, original length 8192: not supported"
    )


def shortest(value: float) -> float:
    """The decimal that was rounded to float32: 1e-5, not 9.999999747378752e-06."""
    return float(str(np.float32(value)))


def _number(name: str, value: Any, least: float) -> float:
    if type(value) not in (int, float) or not least <= value < 2.0**31:
        raise ValueError(f"GGUF field {name}={value!r} must be a number of {least:g} or more")
    return float(value)
