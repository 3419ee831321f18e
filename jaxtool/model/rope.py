"""Frequencies of the rotary position embedding and their scalings, in plain Python numbers.

All depend on the model alone. Not covered: dynamic NTK, whose frequencies depend on the length of a row,
and longrope. The files' readers refuse both.
"""

import math

from jaxtool.model.config import LinearScaling, RopeScaling, Scaling, YarnScaling


def rotary_frequencies(head_dim: int, theta: float, scaling: Scaling | None) -> list[float]:
    """θ^(-2i/H) for i = 0..H/2-1 (RoFormer, 2104.09864, section 3.2.2), scaled where asked."""
    frequencies = [theta ** (-2 * i / head_dim) for i in range(head_dim // 2)]
    if isinstance(scaling, RopeScaling):
        return [_llama3(f, scaling) for f in frequencies]
    if isinstance(scaling, LinearScaling):
        return [f / scaling.factor for f in frequencies]
    if isinstance(scaling, YarnScaling):
        return _yarn(frequencies, head_dim, theta, scaling)
    return frequencies


def attention_factor(scaling: Scaling | None) -> float:
    """What cos and sin are multiplied by: sqrt(1/t) = 0.1 ln(s) + 1 in YaRN (2309.00071, equation 15)."""
    if not isinstance(scaling, YarnScaling):
        return 1.0
    if scaling.attention_factor is not None:
        return scaling.attention_factor
    return yarn_mscale(scaling.factor)


def yarn_mscale(factor: float, weight: float = 1.0) -> float:
    """0.1 · weight · ln(factor) + 1; DeepSeek's mscale and mscale_all_dim are weights."""
    return 0.1 * weight * math.log(factor) + 1.0


def _llama3(frequency: float, scaling: RopeScaling) -> float:
    """Llama 3: keep high frequencies, divide low ones by `factor`, blend linearly in between."""
    turns = scaling.original_max_position * frequency / (2 * math.pi)
    if turns > scaling.high_freq_factor:
        return frequency
    if turns < scaling.low_freq_factor:
        return frequency / scaling.factor
    width = scaling.high_freq_factor - scaling.low_freq_factor
    blend = (turns - scaling.low_freq_factor) / width
    return (1 - blend) * frequency / scaling.factor + blend * frequency


def _yarn(
    frequencies: list[float], head_dim: int, theta: float, scaling: YarnScaling
) -> list[float]:
    """YaRN's NTK by parts (2309.00071, section 3.2): pairs up to `low` are kept, from `high` on divided.

    The blend is linear in the pair's index, as in the authors' code and transformers; the paper's is
    linear in the turns.
    """
    low = _pair_of_turns(scaling.beta_fast, head_dim, theta, scaling.original_max_position)
    high = _pair_of_turns(scaling.beta_slow, head_dim, theta, scaling.original_max_position)
    if scaling.truncates:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    width = high - low or 0.001  # no division by zero where the borders meet
    blends = [min(max((i - low) / width, 0.0), 1.0) for i in range(len(frequencies))]
    return [
        f * (1 - blend) + f / scaling.factor * blend
        for f, blend in zip(frequencies, blends, strict=True)
    ]


def _pair_of_turns(turns: float, head_dim: int, theta: float, length: int) -> float:
    """Index i of the pair whose θ^(-2i/H) makes `turns` full turns in `length` tokens."""
    return head_dim * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(theta))
