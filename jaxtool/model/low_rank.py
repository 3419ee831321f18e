"""A frozen weight with a trained low-rank term: y = x (W + scale · A B), LoRA (2106.09685, equation 3).

The sum is made in float32 inside the layer and only then cast, as publication makes it for the decoder,
so sampler and learner multiply by the same numbers also in bfloat16, where x W + scale · (x A) B would
differ. The gradient is that of the thin form: ∂A = scale · xᵀ (ȳ Bᵀ) and ∂B = scale · (x A)ᵀ ȳ, so no
gradient of W's size is ever made, which costs a third of a full update's products.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtool.model.float_product import dot
from jaxtool.model.quantize import product


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LoraWeight:
    """Stands where a kernel stands; with a layer axis in front of all three while layers are stacked."""

    frozen: Float[Array, "..."]  # W [*in, *out]; it has no gradient
    a: Float[Array, "..."]  # [*in, r]
    b: Float[Array, "..."]  # [r, *out]
    scale: float = dataclasses.field(metadata={"static": True})  # α / r


def merged_kernel(weight: LoraWeight) -> Array:
    """W + scale · A B [*in, *out] float32 of one layer."""
    return _merge(weight.frozen, weight.a, weight.b, weight.scale)


def _merge(frozen: Array, a: Array, b: Array, scale: float) -> Array:
    # Full float32 also on TPUs: the decoder's copy is made by another program than the learner's.
    low = jnp.tensordot(a, b, 1, precision=jax.lax.Precision.HIGHEST)
    return frozen.astype(jnp.float32) + scale * low


def adapted_product(x: Array, weight: LoraWeight, num_in: int) -> Array:
    """x [..., *in] times a `LoraWeight`, in x's dtype, summed in float32: [..., *out] float32."""
    return _product(weight.scale, num_in, x, weight.frozen, weight.a, weight.b)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _product(scale: float, num_in: int, x: Array, frozen: Array, a: Array, b: Array) -> Array:
    return product(x, _merge(frozen, a, b, scale), num_in)


_Kept = tuple[Array, Array, Array, Array]


def _forward(
    scale: float, num_in: int, x: Array, frozen: Array, a: Array, b: Array
) -> tuple[Array, _Kept]:
    return _product(scale, num_in, x, frozen, a, b), (x, frozen, a, b)


def _backward(
    scale: float, num_in: int, kept: _Kept, dy: Array
) -> tuple[Array, None, Array, Array]:
    x, frozen, a, b = kept
    # The sum is made again: kept, it would be a second copy of every adapted weight.
    _, pull = jax.vjp(lambda x: product(x, _merge(frozen, a, b, scale), num_in), x)
    (dx,) = pull(dy)
    dy, a_thin, b_thin = (w.astype(x.dtype) for w in (dy, a, b))
    lead = tuple(range(x.ndim - num_in))
    outputs = tuple(range(len(lead), dy.ndim)), tuple(range(1, b.ndim))
    low = product(x, a_thin, num_in).astype(x.dtype)  # [..., r]
    back = dot(dy, b_thin, outputs).astype(x.dtype)
    da = scale * dot(x, back, (lead, lead))
    db = scale * dot(low, dy, (lead, lead))
    return dx, None, da.astype(a.dtype), db.astype(b.dtype)


_product.defvjp(_forward, _backward)
