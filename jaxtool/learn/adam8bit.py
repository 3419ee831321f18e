"""Adam whose moments are kept in 8 bits (block-wise quantisation, Dettmers et al., 2110.02861).

Deviations from the paper: values are coded by a power, x ≈ ±s (|c| / c_max)^p with s = max |x| of the
block, and not by its dynamic tree, whose table costs TPUs a gather for every number. p = 3 for the first
moment and 6 for the second, so that both have one resolution in units of the update. A second moment
that is not 0 never becomes 0: it would make the update of its parameter a division by ε. Blocks are
parts of the last axis, at most 256 numbers where its size allows, and a mesh cuts between them. Small
parameters keep float32 moments, as in the paper.

A worked example, second moments (p = 6, c_max = 255) of a block whose largest is s = 1e-4:
  x = 1e-4   share 1       c = 255                      back 1e-4
  x = 1e-6   share 0.01    c = 255 * 0.01^(1/6) = 118   back 9.8e-7, 2 % off
  x = 1e-12  share 1e-8    c = 255 * 0.0464 = 12        back 1.1e-12
  x = 1e-20  share 1e-16   c = 0.55, rounded to 1       back 3.6e-19: too large, but not 0
With linear codes the third and the fourth would be 0, and their updates m / ε.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

_LEAST_SIZE = 4096  # numbers of a parameter whose moments are quantised (2110.02861, section 2)
_LARGEST_BLOCK, _SMALLEST_BLOCK = 256, 32
_WANTED_BLOCKS = 64  # of a long axis
_SIGNED_POWER, _POSITIVE_POWER = 3, 6
_SMALLEST_SCALE = 1e-38  # a block of zeros stays zero


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Blocks:
    """Numbers in 8 bits with one scale per block of the last axis."""

    codes: Array  # of the shape of the numbers; int8, or uint8 where none is negative
    scales: Float[Array, "..."]  # [..., last axis / block], float32: the largest |x| of each block


def block_size(length: int) -> int:
    """Numbers of a block on an axis of that many: all of at most 256, or a halving of it again and again.

    On a longer axis the number of blocks is a power of two, 64 or more where they stay as large as 32, so
    that a mesh axis of 2, 4, ... 64 devices, which cuts the axis, cuts between blocks.
    """
    size, count = length, 1
    if length <= _LARGEST_BLOCK:
        return length
    while size % 2 == 0 and size // 2 >= _SMALLEST_BLOCK:
        if size <= _LARGEST_BLOCK and count >= _WANTED_BLOCKS:
            break
        size, count = size // 2, 2 * count
    return size


def quantize_blocks(x: Float[Array, "..."], *, is_signed: bool) -> Blocks:
    """c = round(c_max (|x| / s)^(1/p)), with x's sign; `is_signed` False: x ≥ 0, and c ≥ 1 where x > 0."""
    blocks = _blocked(x)
    scales = jnp.maximum(jnp.max(jnp.abs(blocks), axis=-1), _SMALLEST_SCALE)
    power, most = _power_and_most(is_signed)
    share = jnp.abs(blocks) / scales[..., None]
    codes = jnp.round(most * share ** (1.0 / power))
    if is_signed:
        codes = jnp.where(blocks < 0, -codes, codes)
    else:
        codes = jnp.where(blocks > 0, jnp.maximum(codes, 1.0), codes)
    return Blocks(codes.reshape(x.shape).astype(jnp.int8 if is_signed else jnp.uint8), scales)


def dequantize_blocks(x: Blocks) -> Float[Array, "..."]:
    """±s (|c| / c_max)^p float32."""
    is_signed = x.codes.dtype == jnp.int8
    power, most = _power_and_most(is_signed)
    codes = _blocked(x.codes.astype(jnp.float32)) / most
    values = jnp.sign(codes) * jnp.abs(codes) ** power * x.scales[..., None]
    return values.reshape(x.codes.shape)


_Moment = Array | Blocks


class Adam8bitState(NamedTuple):
    step: Array  # [] int32, updates made
    mu: Any  # first moments: `Blocks`, or float32 where the parameter is small
    nu: Any  # second moments, likewise


def scale_by_adam8bit(
    b1: float, b2: float, *, max_norm: float, eps: float = 1e-8
) -> optax.GradientTransformation:
    """optax.clip_by_global_norm and scale_by_adam, with moments that are quantised between updates.

    Clipping is a part of it because it is done layer by layer: before the loop over layers it would
    make a second copy of all gradients.
    """

    def init(params: Any) -> Adam8bitState:
        mu, nu = (
            jax.tree.map(functools.partial(_zeros, is_signed=is_signed), params)
            for is_signed in (True, False)
        )
        return Adam8bitState(jnp.zeros((), jnp.int32), mu, nu)

    def update(grads: Any, state: Adam8bitState, params: Any = None) -> tuple[Any, Adam8bitState]:
        del params
        step = state.step + 1
        factor = jnp.minimum(1.0, max_norm / optax.tree.norm(grads))

        def one(g: Array, mu: _Moment, nu: _Moment) -> tuple[Array, _Moment, _Moment]:
            g = factor * g
            m = b1 * _opened(mu) + (1 - b1) * g
            v = b2 * _opened(nu) + (1 - b2) * jnp.square(g)
            direction = (m / (1 - b1**step)) / (jnp.sqrt(v / (1 - b2**step)) + eps)
            return direction, _closed_like(mu, m, True), _closed_like(nu, v, False)

        def leaf(g: Array, mu: _Moment, nu: _Moment) -> tuple[Array, _Moment, _Moment]:
            # Layer by layer, or both moments of all layers would exist in float32 for a moment.
            if isinstance(mu, Blocks) and g.ndim > 2:
                return jax.lax.map(lambda part: one(*part), (g, mu, nu))
            return one(g, mu, nu)

        leaves, tree = jax.tree.flatten(grads)
        moments = (tree.flatten_up_to(moment) for moment in (state.mu, state.nu))
        made = [leaf(*parts) for parts in zip(leaves, *moments, strict=True)]
        updates, mu, nu = (tree.unflatten(part) for part in zip(*made, strict=True))
        return updates, Adam8bitState(step, mu, nu)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def _zeros(x: Array, *, is_signed: bool) -> _Moment:
    zeros = jnp.zeros(x.shape, jnp.float32)
    return quantize_blocks(zeros, is_signed=is_signed) if x.size >= _LEAST_SIZE else zeros


def _opened(x: _Moment) -> Array:
    return dequantize_blocks(x) if isinstance(x, Blocks) else x


def _closed_like(before: _Moment, x: Array, is_signed: bool) -> _Moment:
    return quantize_blocks(x, is_signed=is_signed) if isinstance(before, Blocks) else x


def _blocked(x: Array) -> Array:
    """[..., blocks, block] of the last axis."""
    size = block_size(x.shape[-1])
    return x.reshape(*x.shape[:-1], x.shape[-1] // size, size)


def _power_and_most(is_signed: bool) -> tuple[int, float]:
    return (_SIGNED_POWER, 127.0) if is_signed else (_POSITIVE_POWER, 255.0)
