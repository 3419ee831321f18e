"""Shape and features of a policy. One configurable decoder covers Llama, Qwen2, Qwen3 and SmolLM2."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax.numpy as jnp

from jaxtool.core.ranges import check_range

AttentionBackend = Literal["auto", "xla", "pallas_tpu", "cudnn", "pallas_gpu"]
DeviceSums = Literal["float32", "compute_dtype"]
Dtype = Literal["float32", "bfloat16"]
Remat = Literal["none", "block", "attention", "dots", "named"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """Llama 3 frequency scaling (`rope_type: llama3` of a Hugging Face config)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int

    def __post_init__(self) -> None:
        check_range(self, "factor", "low_freq_factor", "high_freq_factor", above=0)
        check_range(self, "original_max_position", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearScaling:
    """Every frequency divided by `factor` (`rope_type: linear`): positions interpolated, 2306.15595."""

    factor: float

    def __post_init__(self) -> None:
        check_range(self, "factor", least=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class YarnScaling:
    """YaRN (2309.00071; `rope_type: yarn`): rows of `factor` times `original_max_position` tokens."""

    factor: float
    original_max_position: int  # tokens of a row before the extension
    attention_factor: float | None = None  # of cos and sin; None: 0.1 ln(factor) + 1
    beta_fast: float = 32.0  # turns within the original length above which a frequency is kept
    beta_slow: float = 1.0  # turns below which it is divided by `factor`
    truncates: bool = True  # the two borders are rounded outwards to whole pairs

    def __post_init__(self) -> None:
        check_range(self, "factor", "original_max_position", least=1)
        check_range(self, "attention_factor", "beta_fast", "beta_slow", above=0)
        if self.beta_fast <= self.beta_slow:
            raise ValueError(
                f"YarnScaling.beta_fast={self.beta_fast} must be larger than "
                f"beta_slow={self.beta_slow}"
            )


Scaling = RopeScaling | LinearScaling | YarnScaling


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Shape of a decoder-only transformer with RMSNorm, RoPE, GQA and SwiGLU."""

    vocab_size: int  # V
    d_model: int  # D
    d_ff: int  # F
    num_layers: int  # L
    num_heads: int  # N
    num_kv_heads: int  # K
    head_dim: int  # H
    rope_theta: float = 10_000.0
    rope_scaling: Scaling | None = None
    rms_norm_eps: float = 1e-6
    ties_embeddings: bool = True  # the LM head is the embedding table
    has_qkv_bias: bool = False  # Qwen2
    has_qk_norm: bool = False  # Qwen3: RMSNorm of each query and key head
    compute_dtype: Dtype = "float32"  # what is trained stays float32
    remat: Remat = "none"  # what the backward pass computes again, see jaxtool/model/remat.py
    attention: AttentionBackend = "auto"  # see jaxtool/model/attention_backends.py
    attention_block: int | None = (
        None  # training: queries whose scores exist at once; None: an eighth
    )
    cache: Literal["compute_dtype", "int8"] = "compute_dtype"  # keys and values of decoded tokens
    # What devices of a tensor group send each other of a sum over their heads or widths, and of its gradients. With
    # LoRA it is float32.
    device_sums: DeviceSums = "float32"
    scans_layers: bool = True  # one compiled layer; False unrolls: slower to compile, faster on CPU

    def __post_init__(self) -> None:
        sizes = (
            "vocab_size",
            "d_model",
            "d_ff",
            "num_layers",
            "num_heads",
            "num_kv_heads",
            "head_dim",
        )
        check_range(self, *sizes, least=1)
        check_range(self, "rope_theta", "rms_norm_eps", above=0)
        if isinstance(self.rope_scaling, YarnScaling) and self.rope_theta <= 1:
            raise ValueError(f"YaRN needs ModelConfig.rope_theta > 1, got {self.rope_theta}")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(f"{self.num_heads=} must be a multiple of {self.num_kv_heads=}")
        if self.head_dim % 2:
            raise ValueError(f"{self.head_dim=} must be even: RoPE rotates pairs")
        if self.attention_block is not None and self.attention_block < 1:
            raise ValueError(f"{self.attention_block=} must be >= 1, or None")

    @property
    def dtype(self) -> jnp.dtype:
        return jnp.dtype(self.compute_dtype)

    @property
    def sums_dtype(self) -> jnp.dtype | None:
        """Of `device_sums`; None: float32."""
        return self.dtype if self.device_sums == "compute_dtype" else None

    @property
    def group_heads(self) -> int:
        """Query heads that share a key/value head."""
        return self.num_heads // self.num_kv_heads


def scaling_from_fields(fields: Mapping[str, Any]) -> Scaling:
    """What `dataclasses.asdict` made these fields of: no two kinds have the same."""
    for kind in get_args(Scaling):
        if {field.name for field in dataclasses.fields(kind)} == set(fields):
            return kind(**fields)
    raise ValueError(f"rope_scaling={dict(fields)!r} is of no known kind")


def tiny(vocab_size: int) -> ModelConfig:
    """Two layers of width 32: compiles in about a second, for tests."""
    return ModelConfig(
        vocab_size=vocab_size,
        d_model=32,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
    )
