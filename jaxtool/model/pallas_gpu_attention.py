"""Attention over the KV cache as a Pallas kernel for NVIDIA GPUs: each row is read to its own length, in parts side by side.

XLA reads the positions of the longest row for all rows. Here a row's positions are cut into equal parts, one program each,
so that a few long rows fill a GPU; a sum over the parts follows. This is Flash-Decoding (Dao and others, 2023,
https://crfm.stanford.edu/2023/10/12/flashdecoding.html) with the running softmax of FlashAttention-2 (2307.08691,
algorithm 1) inside a part. int8 caches are scaled inside, as in `pallas_attention`.

Lowered by Triton, a way through jax that jax 0.12 still has and calls deprecated. Nobody has run it on a GPU here, so it
is chosen on request alone (`attention_backends`). It has no gradient. Why not cuDNN by `jax.nn.dot_product_attention`:
that takes lengths, but no int8 scales, and another order of axes, so a layer's cache would be copied in every step.

An example of the sum over parts: one query whose scores are 1, 2 and 3, values 10, 20 and 30, in two parts of two
positions.

  part 0: scores [1 2]  highest 2  weights [0.37 1]  sum 1.37  values 23.7
  part 1: scores [3]    highest 3  weights [1]       sum 1     values 30
  both:   highest 3, part 0 shrinks by exp(2 - 3) = 0.37: sum 1.50, values 38.7; 38.7 / 1.50 = 25.8
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import MASKED_SCORE
from jaxtool.model.kv_cache import LayerCache

KERNEL = "attention_over_cache_gpu"  # its name in compiled programs
LEAST_HEAD, MOST_HEAD = 16, 256  # and a power of two: what a program holds in registers
_LEAST_QUERIES, _MOST_QUERIES = 16, 64  # of a block: the matrix unit's rows are 16
_BLOCK_BYTES = 16 << 10  # of one block of keys in the dtype of the products
_MOST_BLOCK = 128  # positions
# Programs that fill a GPU: twice the 132 multiprocessors of an H100. More would be sums without use.
_PROGRAMS = 256
_LEAST_PART = 256  # positions worth a program of their own
_WARPS, _STAGES = 4, 2  # of a program; blocks of keys on their way


def split_cached_attention(
    q: Float[Array, "B C N H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    *,
    interpret: bool = False,
) -> Float[Array, "B C N H"]:
    """`jaxtool.model.attention.cached_attention` by the kernel; H must be a power of two from 16 to 256.

    A row's numbers depend on its own length and the shapes alone, never on its neighbours.

    Args:
      interpret: runs the kernel's operations one by one on any platform, for tests.
    """
    b, c, n, h = q.shape
    kv, s = cache.k.shape[1:3]
    group = n // kv
    # 1) Queries [B, K, blocks x block, H]: the query heads of one token stand together. Those that fill up the last
    #    block stand at position 0: they see one key, so no softmax is empty.
    query_block, block, parts = shapes_of(b, kv, c * group, s, h, q.dtype.itemsize)
    blocks = -(-c * group // query_block)
    padding = blocks * query_block - c * group
    queries = q.reshape(b, c, kv, group, h).transpose(0, 2, 1, 3, 4).reshape(b, kv, c * group, h)
    queries = jnp.pad(queries, ((0, 0), (0, 0), (0, padding), (0, 0)))
    at = jnp.repeat(jnp.minimum(positions, s - 1).astype(jnp.int32), group, axis=1)
    at = jnp.pad(at, ((0, 0), (0, padding)))
    # 2) What each block of queries sees at most, in positions.
    lengths = jnp.max(at.reshape(b, blocks, query_block), axis=2) + 1

    # 3) One program for each row, key head, block of queries and part. Keys and values are not copied here: a
    #    program loads the blocks that it needs.
    def block_of(t: Any) -> Any:
        return jax.lax.div(t, jnp.int32(parts))

    scales = [x for x in (cache.k_scale, cache.v_scale) if x is not None]
    whole = pl.BlockSpec((None, None, s, h), lambda i, j, t: (i, j, 0, 0))
    written = pl.BlockSpec((None, None, None, query_block), lambda i, j, t: (i, j, t, 0))
    out, highest, total = pl.pallas_call(
        functools.partial(_kernel, block=block, parts=parts, end=s),
        grid=(b, kv, blocks * parts),
        in_specs=[
            pl.BlockSpec((None, None), lambda i, j, t: (i, block_of(t))),
            pl.BlockSpec((None, None, query_block, h), lambda i, j, t: (i, j, block_of(t), 0)),
            whole,
            whole,
            pl.BlockSpec((None, query_block), lambda i, j, t: (i, block_of(t))),
        ]
        + [pl.BlockSpec((None, None, s), lambda i, j, t: (i, j, 0))] * len(scales),
        out_specs=[
            pl.BlockSpec((None, None, None, query_block, h), lambda i, j, t: (i, j, t, 0, 0)),
            written,
            written,
        ],
        out_shape=[
            jax.ShapeDtypeStruct((b, kv, blocks * parts, query_block, h), jnp.float32),
            jax.ShapeDtypeStruct((b, kv, blocks * parts, query_block), jnp.float32),
            jax.ShapeDtypeStruct((b, kv, blocks * parts, query_block), jnp.float32),
        ],
        compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=_STAGES),
        name=KERNEL,
        interpret=interpret,
    )(lengths, queries, cache.k, cache.v, at, *scales)

    # 4) The sum over the parts, and back to the order of the queries, without those that filled up.
    def by_part(x: Array) -> Array:
        return x.reshape(b, kv, blocks, parts, *x.shape[3:])

    out = summed_parts(by_part(out), by_part(highest), by_part(total))
    out = out.reshape(b, kv, blocks * query_block, h)[:, :, : c * group].astype(q.dtype)
    return out.reshape(b, kv, c, group, h).transpose(0, 2, 1, 3, 4).reshape(b, c, n, h)


def summed_parts(
    values: Float[Array, "B K U P Q H"],
    highest: Float[Array, "B K U P Q"],
    total: Float[Array, "B K U P Q"],
) -> Float[Array, "B K U Q H"]:
    """softmax·v of whole rows from the sums of their parts P, each under its own highest score."""
    shrink = jnp.exp(highest - jnp.max(highest, axis=3, keepdims=True))
    summed = jnp.sum(values * shrink[..., None], axis=3)
    return summed / jnp.sum(total * shrink, axis=3)[..., None]


def shapes_of(
    rows: int, kv_heads: int, queries: int, positions: int, head_dim: int, itemsize: int
) -> tuple[int, int, int]:
    """Queries of a block, positions of a block, and parts of a row. They do not depend on the rows' lengths.

    Args:
      queries: of a row and key head.
      positions: of the cache.
      itemsize: bytes of a number in the products.

    Examples, heads of 128 in bfloat16, 7 queries to a key: 8 rows with 4 key heads of 16,384 positions are blocks of 16
    queries and 64 positions, in 8 parts; 64 rows fill the GPU by themselves, so there is one part.
    """
    query_block = min(max(_LEAST_QUERIES, pl.next_power_of_2(queries)), _MOST_QUERIES)
    block = min(_MOST_BLOCK, max(16, _BLOCK_BYTES // (head_dim * itemsize)))
    programs = rows * kv_heads * -(-queries // query_block)
    parts = min(_PROGRAMS // programs, -(-positions // _LEAST_PART))
    return query_block, block, max(1, parts)


def head_obstacle(head_dim: int) -> str | None:
    """Why heads of this width cannot be served; None: they can."""
    if LEAST_HEAD <= head_dim <= MOST_HEAD and head_dim & (head_dim - 1) == 0:
        return None
    return f"head_dim={head_dim} is no power of two from {LEAST_HEAD} to {MOST_HEAD}"


def _kernel(*refs: Any, block: int, parts: int, end: int) -> None:
    """One part of what one block of queries sees: highest score, sum of weights and weighted values.

    An example: a length of 300 in blocks of 64 positions is 5 blocks, in 2 parts of 3 and 2.

    Args:
      end: positions of the cache; what lies beyond is not loaded.
    """
    length_ref, q_ref, k_ref, v_ref, at_ref, *scale_refs = refs[:-3]
    out_ref, highest_ref, total_ref = refs[-3:]
    # 1) The blocks of this part: an equal share of those that the queries see, which may be none.
    num_blocks = pl.cdiv(length_ref[...], block)
    share = pl.cdiv(num_blocks, parts)
    first = jax.lax.rem(pl.program_id(2), jnp.int32(parts)) * share
    last = jnp.minimum(first + share, num_blocks)
    q, at = q_ref[...], at_ref[...]
    precision = jax.lax.Precision.HIGHEST if q.dtype == jnp.float32 else None

    def add(i: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        before, total, values = carry
        start = i * block
        position = start + jnp.arange(block, dtype=jnp.int32)
        inside = position < end

        # 2) Scores of one block. A key's int8 scale is one number for all of H, so it multiplies the score in place
        #    of the key.
        def load(ref: Any) -> Array:
            index = (pl.ds(start, block),) + (slice(None),) * (len(ref.shape) - 1)
            mask = inside.reshape(-1, *(1,) * (len(ref.shape) - 1))
            mask = jnp.broadcast_to(mask, (block, *ref.shape[1:]))
            return plt.load(ref.at[index], mask=mask, other=0)

        k, v = load(k_ref).astype(q.dtype), load(v_ref).astype(q.dtype)
        scores = plt.dot(q, k, trans_b=True, precision=precision) * q.shape[-1] ** -0.5
        if scale_refs:
            scores = scores * load(scale_refs[0])[None, :]
        scores = jnp.where(position[None, :] <= at[:, None], scores, MASKED_SCORE)
        # 3) The highest score so far; what was summed under a lower one shrinks to the new one.
        highest = jnp.maximum(before, jnp.max(scores, axis=1))
        shrink = jnp.exp(before - highest)
        weights = jnp.exp(scores - highest[:, None])
        total = shrink * total + jnp.sum(weights, axis=1)
        # 4) Values of this block. The int8 scale comes after the sum, which is of weights alone.
        if scale_refs:
            weights = weights * load(scale_refs[1])[None, :]
        added = plt.dot(weights.astype(q.dtype), v, precision=precision)
        return highest, total, shrink[:, None] * values + added

    # 5) A part without blocks says so by the lowest of all scores: its share of the sum is 0.
    nothing = (
        jnp.full(at.shape, MASKED_SCORE, jnp.float32),
        jnp.zeros(at.shape, jnp.float32),
        jnp.zeros(q.shape, jnp.float32),
    )
    highest, total, values = jax.lax.fori_loop(first, last, add, nothing)
    out_ref[...], highest_ref[...], total_ref[...] = values, highest, total
