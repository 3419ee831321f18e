"""RMSNorm, rotary position embedding, gated feed-forward and the attention projections.

Modules are Flax NNX definitions used tree-only: no shared references and no mutation, so that
`nnx.split` once and `nnx.merge` inside a jitted function is all the NNX there is.
"""

import functools
import math

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxtool.model.config import ModelConfig
from jaxtool.model.float_product import joint_product
from jaxtool.model.low_rank import LoraWeight, adapted_product
from jaxtool.model.quantize import Int8Weight, product
from jaxtool.model.remat import keep_product
from jaxtool.model.rope import attention_factor, rotary_frequencies


def rms_norm(x: Array, scale: Array, eps: float) -> Array:
    """x / sqrt(mean(x²) + eps) · scale over the last axis, in float32, cast back to x's dtype."""
    y = x.astype(jnp.float32)
    y = y * jax.lax.rsqrt(jnp.mean(jnp.square(y), axis=-1, keepdims=True) + eps)
    scale = scale.astype(jnp.float32).reshape((1,) * (y.ndim - 1) + scale.shape)
    return (y * scale).astype(x.dtype)


class RMSNorm(nnx.Module):
    def __init__(self, width: int, eps: float):
        self.scale = nnx.Param(jnp.ones((width,), jnp.float32))
        self.eps = eps

    def __call__(self, x: Array) -> Array:
        return rms_norm(x, self.scale[...], self.eps)


class Projection(nnx.Module):
    """x [..., *in] times a kernel [*in, *out], accumulated in float32, plus an optional bias."""

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        rngs: nnx.Rngs,
        std: float,
        has_bias: bool = False,
        sums: jnp.dtype | None = None,
        gradient_sums: jnp.dtype | None = None,
    ):
        """`sums`: see `product`; `gradient_sums`: those of `joint_product`. None: float32."""
        kernel = std * jax.random.normal(rngs.params(), in_shape + out_shape, jnp.float32)
        self.kernel = nnx.Param(kernel)
        self.bias = nnx.Param(jnp.zeros(out_shape, jnp.float32)) if has_bias else None
        self.num_in = len(in_shape)
        self.sums = sums
        self.gradient_sums = gradient_sums

    def __call__(self, x: Array) -> Array:
        kernel = self.kernel.get_value()
        if isinstance(kernel, LoraWeight):
            y = adapted_product(x, kernel, self.num_in)
        else:
            y = product(x, kernel, self.num_in, self.sums)
        return self.finished(y, x.dtype)

    def finished(self, y: Array, dtype: jnp.dtype) -> Array:
        """The product in float32 with the bias, in `dtype`."""
        y = keep_product(y)
        if self.bias is not None:
            bias = self.bias[...]
            y = y + bias.reshape((1,) * (y.ndim - bias.ndim) + bias.shape)
        return y.astype(dtype)


def projected(x: Array, *projections: Projection) -> tuple[Array, ...]:
    """What projections of one input make of it: as each alone, with one sum of their gradients of x."""
    kernels = tuple(projection.kernel.get_value() for projection in projections)
    if any(isinstance(kernel, LoraWeight | Int8Weight) for kernel in kernels):
        return tuple(projection(x) for projection in projections)
    first = projections[0]
    products = joint_product(x, kernels, first.num_in, first.gradient_sums or jnp.float32)
    pairs = zip(projections, products, strict=True)
    return tuple(projection.finished(y, x.dtype) for projection, y in pairs)


class GatedMlp(nnx.Module):
    """down(silu(gate(x)) · up(x))."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d, f = (config.d_model,), (config.d_ff,)
        std, sums = config.d_model**-0.5, config.sums_dtype
        self.gate = Projection(d, f, rngs=rngs, std=std, gradient_sums=sums)
        self.up = Projection(d, f, rngs=rngs, std=std, gradient_sums=sums)
        self.down = Projection(f, d, rngs=rngs, std=_output_std(config, config.d_ff), sums=sums)

    def hidden(self, x: Array) -> Array:
        """silu(gate(x)) · up(x)."""
        gate, up = projected(x, self.gate, self.up)
        return nnx.silu(gate) * up


class AttentionProjections(nnx.Module):
    """Queries, keys and values with rotary positions applied, and the output projection."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        d = (config.d_model,)
        q_shape = (config.num_heads, config.head_dim)
        kv_shape = (config.num_kv_heads, config.head_dim)
        std, bias = config.d_model**-0.5, config.has_qkv_bias
        inward = functools.partial(
            Projection, d, rngs=rngs, std=std, has_bias=bias, gradient_sums=config.sums_dtype
        )
        self.query, self.key, self.value = inward(q_shape), inward(kv_shape), inward(kv_shape)
        self.output = Projection(
            q_shape,
            d,
            rngs=rngs,
            std=_output_std(config, config.num_heads * config.head_dim),
            sums=config.sums_dtype,
        )
        eps = config.rms_norm_eps
        self.query_norm = RMSNorm(config.head_dim, eps) if config.has_qk_norm else None
        self.key_norm = RMSNorm(config.head_dim, eps) if config.has_qk_norm else None

    def project(self, x: Array, rotary: tuple[Array, Array]) -> tuple[Array, Array, Array]:
        """x [B, T, D] -> q [B, T, N, H], k and v [B, T, K, H]."""
        q, k, v = projected(x, self.query, self.key, self.value)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        return rotate(q, rotary), rotate(k, rotary), v


def rotary_angles(
    positions: Int[Array, "B T"], config: ModelConfig
) -> tuple[Float[Array, "B T h"], Float[Array, "B T h"]]:
    """cos and sin of position · frequency for each rotated pair, h = H / 2, float32.

    YaRN multiplies both by its attention factor, so scores grow by its square.
    """
    frequencies = jnp.asarray(
        rotary_frequencies(config.head_dim, config.rope_theta, config.rope_scaling), jnp.float32
    )
    angles = positions[:, :, None].astype(jnp.float32) * frequencies[None, None, :]
    factor = attention_factor(config.rope_scaling)
    return factor * jnp.cos(angles), factor * jnp.sin(angles)


def in_both_halves(rotary: tuple[Array, Array]) -> tuple[Array, Array]:
    """Angles [B, T, H] of every number in place of every pair: `rotate` then takes its way for TPUs."""
    cos, sin = (jnp.concatenate([angle, angle], axis=-1) for angle in rotary)
    return cos, sin


def rotate(x: Array, rotary: tuple[Array, Array]) -> Array:
    """Rotates the pairs (x[i], x[i + H/2]) of x [B, T, heads, H], in float32."""
    cos, sin = (angle[:, :, None, :] for angle in rotary)
    if cos.shape[-1] == x.shape[-1]:
        return _turned(x, cos, sin)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1)
    return rotated.astype(x.dtype)


@jax.custom_vjp
def _turned(x: Array, cos: Array, sin: Array) -> Array:
    """The same numbers without halves of 64 lanes: x cos + (x turn) sin, where (x turn)[i] is the other of the pair.

    `turn` has one 1 or -1 a column, so the product is exact. For H = 4: (a, b, c, d) turn = (-c, -d, a, b). On a TPU
    halves of a head make the compiler put tokens on the lanes and turn queries and keys over again for the kernel.
    The gradient is the rotation back.
    """
    half = x.shape[-1] // 2
    eye = jnp.eye(half, dtype=x.dtype)
    turn = jnp.block([[jnp.zeros_like(eye), eye], [-eye, jnp.zeros_like(eye)]])
    other = jnp.einsum(
        "btnh,hg->btng",
        x,
        turn,
        precision=jax.lax.Precision.HIGHEST,
        preferred_element_type=jnp.float32,
    )
    return (x.astype(jnp.float32) * cos + other * sin).astype(x.dtype)


def _turned_forward(x: Array, cos: Array, sin: Array) -> tuple[Array, tuple[Array, Array]]:
    return _turned(x, cos, sin), (cos, sin)


def _turned_backward(rotary: tuple[Array, Array], cotangent: Array) -> tuple[Array, Array, Array]:
    cos, sin = rotary  # of positions, which have no gradient
    return _turned(cotangent, cos, -sin), jnp.zeros_like(cos), jnp.zeros_like(sin)


_turned.defvjp(_turned_forward, _turned_backward)


def _output_std(config: ModelConfig, fan_in: int) -> float:
    """GPT-2's depth scaling: each layer adds two terms to the residual stream."""
    return fan_in**-0.5 / math.sqrt(2 * config.num_layers)
