"""Symmetric int8: x ≈ values · scale, one float32 scale per slice, scale = max |x| / 127.

The scheme is that of LLM.int8() (2208.07339, section 2.1, absmax quantisation) without its outlier
columns. Products run in the compute dtype, which holds every int8 exactly (bfloat16 has 8 bits), are
summed in float32 and scaled once per output: the scale of an output channel is a factor of its sum.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int8

from jaxtool.model.float_product import float_product

_LARGEST = 127.0
_SMALLEST_SCALE = 1e-30  # a slice of zeros stays zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int8Weight:
    """A weight in int8 with one scale per output channel."""

    values: Int8[Array, "..."]  # of the shape of the weight
    scale: Float[Array, "..."]  # float32, of the shape of its output axes


def quantize(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """int8 values of the shape of `x` and float32 scales, `axes` left out of their shape."""
    x = x.astype(jnp.float32)
    scale = jnp.maximum(jnp.max(jnp.abs(x), axis=axes, keepdims=True) / _LARGEST, _SMALLEST_SCALE)
    return jnp.round(x / scale).astype(jnp.int8), jnp.squeeze(scale, axes)


def product(
    x: Array, weight: Array | Int8Weight, num_in: int, sums: jnp.dtype | None = None
) -> Array:
    """x [..., *in] times a weight [*in, *out], in x's dtype, summed in float32: [..., *out] float32.

    Args:
      sums: as in `float_product`; None: float32.
    """
    values = weight.values.astype(x.dtype) if isinstance(weight, Int8Weight) else weight
    y = float_product(x, values, num_in, sums=sums or jnp.float32)
    if not isinstance(weight, Int8Weight):
        return y
    return y * weight.scale.reshape((1,) * (y.ndim - weight.scale.ndim) + weight.scale.shape)
