"""The matrix product of activations and a weight, with the weight's gradient in the weight's layout.

The gradient is written out because JAX makes that of x W as (dyᵀ x)ᵀ, which XLA's CPU backend takes 1.2 to
2.8 times as long for as for xᵀ dy. It is summed in float32 and stays so, where autodiff would round it to
the compute dtype on its way to a float32 weight.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_Axes = tuple[int, ...]
_FLOAT32 = jnp.dtype(jnp.float32)


def float_product(
    x: Float[Array, "..."],
    weight: Float[Array, "..."],
    num_in: int,
    is_transposed: bool = False,
    sums: Any = jnp.float32,
) -> Float[Array, "..."]:
    """x [..., *in] times a weight, in x's dtype, summed in float32: [..., *out] float32.

    Args:
      weight: [*in, *out], or [*out, *in] if transposed, as an embedding table is that serves as LM head.
      num_in: axes of x that are summed over.
      sums: where these are sharded, in what dtype devices send their parts of the sums to each other: each part
        is rounded to it once.
    """
    return _product(x, weight, num_in, is_transposed, jnp.dtype(sums))


def joint_product(
    x: Float[Array, "..."],
    weights: tuple[Float[Array, "..."], ...],
    num_in: int,
    sums: Any = jnp.float32,
) -> tuple[Float[Array, "..."], ...]:
    """`float_product` of x and each of several weights [*in, *out].

    The gradient of x is summed over the weights before it is rounded to x's dtype. Where outputs are sharded,
    devices so send each other one sum and not one for each weight.

    Args:
      sums: of the gradient of x, as in `float_product`: a part is then rounded once for each weight.
    """
    return _joint(x, weights, num_in, jnp.dtype(sums))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _joint(x: Array, weights: tuple[Array, ...], num_in: int, sums: jnp.dtype) -> tuple[Array, ...]:
    return tuple(_product(x, weight, num_in, False, _FLOAT32) for weight in weights)


def _joint_forward(
    x: Array, weights: tuple[Array, ...], num_in: int, sums: jnp.dtype
) -> tuple[Any, Any]:
    return _joint(x, weights, num_in, sums), (x, weights)


def _joint_backward(
    num_in: int, sums: jnp.dtype, kept: Any, dys: tuple[Array, ...]
) -> tuple[Array, Any]:
    x, weights = kept
    dys = tuple(dy.astype(x.dtype) for dy in dys)
    # From the last to the first, as autodiff adds them.
    pairs = list(zip(dys, weights, strict=True))
    parts = [_of_input(dy, w, num_in, False, sums) for dy, w in pairs][::-1]
    dx = functools.reduce(jnp.add, parts).astype(x.dtype)
    dws = (weight_gradient(x, dy, num_in) for dy in dys)
    return dx, tuple(dw.astype(w.dtype) for dw, w in zip(dws, weights, strict=True))


_joint.defvjp(_joint_forward, _joint_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _product(x: Array, weight: Array, num_in: int, is_transposed: bool, sums: jnp.dtype) -> Array:
    inputs, _ = _axes(weight.ndim, num_in, is_transposed)
    axes = tuple(range(x.ndim - num_in, x.ndim)), inputs
    return dot(x, weight.astype(x.dtype), axes, sums).astype(jnp.float32)


def dot(x: Array, y: Array, axes: tuple[_Axes, _Axes], sums: jnp.dtype = _FLOAT32) -> Array:
    """Sums over `axes` of x and y in float32: a bfloat16 sum is ten times slower on XLA's CPU."""
    return jax.lax.dot_general(x, y, (axes, ((), ())), preferred_element_type=sums)


def _axes(ndim: int, num_in: int, is_transposed: bool) -> tuple[_Axes, _Axes]:
    """A weight's axes of inputs and of outputs."""
    cut = ndim - num_in if is_transposed else num_in
    first, last = tuple(range(cut)), tuple(range(cut, ndim))
    return (last, first) if is_transposed else (first, last)


def _forward(
    x: Array, weight: Array, num_in: int, is_transposed: bool, sums: jnp.dtype
) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, weight, num_in, is_transposed, sums), (x, weight)


def _backward(
    num_in: int, is_transposed: bool, sums: jnp.dtype, kept: tuple[Array, Array], dy: Array
) -> tuple[Array, Array]:
    x, weight = kept
    dy = dy.astype(x.dtype)
    dw = weight_gradient(x, dy, num_in, is_transposed)
    return input_gradient(dy, weight, num_in, is_transposed), dw.astype(weight.dtype)


def input_gradient(
    dy: Float[Array, "..."], weight: Float[Array, "..."], num_in: int, is_transposed: bool = False
) -> Float[Array, "..."]:
    """dy Wᵀ of `float_product`, in dy's dtype."""
    return _of_input(dy, weight, num_in, is_transposed).astype(dy.dtype)


def _of_input(
    dy: Array, weight: Array, num_in: int, is_transposed: bool, sums: jnp.dtype = _FLOAT32
) -> Array:
    """dy Wᵀ in `sums`."""
    _, outputs = _axes(weight.ndim, num_in, is_transposed)
    last = tuple(range(dy.ndim - len(outputs), dy.ndim))
    return dot(dy, weight.astype(dy.dtype), (last, outputs), sums)


def weight_gradient(
    x: Float[Array, "..."], dy: Float[Array, "..."], num_in: int, is_transposed: bool = False
) -> Float[Array, "..."]:
    """xᵀ dy of `float_product`, in the weight's layout, float32."""
    lead = tuple(range(x.ndim - num_in))
    return dot(dy, x, (lead, lead)) if is_transposed else dot(x, dy, (lead, lead))


_product.defvjp(_forward, _backward)
