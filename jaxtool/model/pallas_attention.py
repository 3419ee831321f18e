"""Attention over the KV cache as a Pallas TPU kernel: blocks of positions, running softmax.

The method is FlashAttention-2's (2307.08691, algorithm 1): one pass over the keys with a running
maximum and sum. A row reads the blocks up to its own longest position and no more, so short rows do
not pay for long neighbours. int8 caches are scaled inside: scores by the key's, weights by the value's.
Not covered: paged caches, gradients, other platforms.

An example of the running softmax: one query whose scores are 1, 2 and 3, values 10, 20 and 30, in blocks
of two positions. The last position is beyond the query's own and masked.

  block 0: scores [1 2]       highest 2  weights [0.37 1]  sum 1.37                     values 23.7
  block 1: scores [3 masked]  highest 3  weights [1    0]  sum 0.37 x 1.37 + 1 = 1.50   values 38.7
  Out:     38.7 / 1.50 = 25.8, which is softmax([1 2 3]) . [10 20 30]

In block 1 the highest score rises by 1, so sum and values so far shrink by exp(2 - 3) = 0.37.
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import MASKED_SCORE
from jaxtool.model.kv_cache import LayerCache

LANES = 128  # of a TPU vector register: last axes come in multiples of it
_MOST_QUERIES = 512  # of a query block: its [512, 512] float32 scores fit the vector memory
_MOST_POSITIONS = 512


def flash_cached_attention(
    q: Float[Array, "B C N H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    *,
    interpret: bool = False,
) -> Float[Array, "B C N H"]:
    """`jaxtool.model.attention.cached_attention`; S must be a multiple of 128.

    Args:
      interpret: runs the kernel's operations one by one on any platform, for tests.
    """
    b, c, n, h = q.shape
    kv, s = cache.k.shape[1:3]
    group = n // kv
    block_positions = math.gcd(s, _MOST_POSITIONS)
    # 1) Queries by key head: [B, K, C x group, H]. The query heads of one token stand together, so a
    #    block of queries spans few positions.
    queries = q.reshape(b, c, kv, group, h).transpose(0, 2, 1, 3, 4).reshape(b, kv, c * group, h)
    at = jnp.repeat(jnp.minimum(positions, s - 1), group, axis=1)  # [B, Q]
    # 2) Whole query blocks, in multiples of the 8 rows of a vector register. Queries that fill up the
    #    last block stand at position 0: they see one key, so no softmax is empty.
    query_block = min(-(-c * group // 8) * 8, _MOST_QUERIES)
    padding = -c * group % query_block
    queries = jnp.pad(queries, ((0, 0), (0, 0), (0, padding), (0, 0)))
    at = jnp.pad(at, ((0, 0), (0, padding)))
    num_blocks = at.shape[1] // query_block
    # 3) The last block of positions that any query of a block may see. At 512 positions a block, a
    #    row at position 700 has last = 1 and reads two blocks, however long the cache is.
    last = jnp.max(at.reshape(b, num_blocks, query_block), axis=2) // block_positions

    def query_at(i: Any, k: Any, j: Any, t: Any, last: Any) -> tuple[Any, ...]:
        return i, k, j, 0

    def position_at(i: Any, k: Any, j: Any, t: Any, last: Any) -> tuple[Any, ...]:
        # Beyond the last block of positions the same one is named again, which copies nothing.
        return i, k, jnp.minimum(t, last[i, j]), 0

    def scale_at(i: Any, k: Any, j: Any, t: Any, last: Any) -> tuple[Any, ...]:
        return i, k, 0, jnp.minimum(t, last[i, j])

    # 4) The grid. Its last axis walks over blocks of positions, one after the other ("arbitrary"), so
    #    that the scratch memory carries maximum, sum and values from block to block.
    query_spec = pl.BlockSpec((1, 1, query_block, h), query_at)
    position_spec = pl.BlockSpec((1, 1, block_positions, h), position_at)
    at_spec = pl.BlockSpec((1, query_block, 1), lambda i, k, j, t, last: (i, j, 0))
    scales = [x[:, :, None, :] for x in (cache.k_scale, cache.v_scale) if x is not None]
    out = pl.pallas_call(
        functools.partial(_kernel, block_positions=block_positions, is_scaled=bool(scales)),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=1,
            grid=(b, kv, num_blocks, s // block_positions),
            in_specs=[query_spec, position_spec, position_spec, at_spec]
            + [pl.BlockSpec((1, 1, 1, block_positions), scale_at)] * len(scales),
            out_specs=query_spec,
            scratch_shapes=[
                pltpu.VMEM((query_block, LANES), jnp.float32),
                pltpu.VMEM((query_block, LANES), jnp.float32),
                pltpu.VMEM((query_block, h), jnp.float32),
            ],
        ),
        out_shape=jax.ShapeDtypeStruct(queries.shape, q.dtype),
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "parallel", "parallel", "arbitrary")
        ),
        interpret=interpret,
    )(last, queries, cache.k, cache.v, at[:, :, None], *scales)
    # 5) Back to the order of the queries, without those that filled up.
    out = out[:, :, : c * group].reshape(b, kv, c, group, h).transpose(0, 2, 1, 3, 4)
    return out.reshape(b, c, n, h)


def _kernel(
    last_ref: Any, q_ref: Any, k_ref: Any, v_ref: Any, at_ref: Any, *refs: Any, **static: Any
):
    """One block of positions of one block of queries: max, sum and weighted values so far."""
    is_scaled, block_positions = static["is_scaled"], static["block_positions"]
    k_scale_ref, v_scale_ref = refs[:2] if is_scaled else (None, None)
    out_ref, max_ref, sum_ref, values_ref = refs[-4:]
    t = pl.program_id(3)
    last = last_ref[pl.program_id(0), pl.program_id(2)]

    # 1) Nothing seen yet.
    @pl.when(t == 0)
    def _start() -> None:
        max_ref[...] = jnp.full_like(max_ref, MASKED_SCORE)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        values_ref[...] = jnp.zeros_like(values_ref)

    # 2) Beyond `last` no query sees anything: neither a copy nor a product is made.
    @pl.when(t <= last)
    def _add() -> None:
        # 3) Scores of this block. A key's int8 scale is one number for all of H, so it multiplies the
        #    score in place of the key.
        q, k = q_ref[0, 0], k_ref[0, 0]
        scores = jax.lax.dot_general(
            q, k.astype(q.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )
        scores = scores * q.shape[-1] ** -0.5
        if k_scale_ref is not None:
            scores = scores * k_scale_ref[0, 0]
        position = t * block_positions + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
        scores = jnp.where(position <= at_ref[0], scores, MASKED_SCORE)
        # 4) The highest score so far; what was summed under a lower one shrinks to the new one. All lanes
        #    of a scratch row hold the same number, for a register cannot be narrower.
        before = max_ref[:, :1]
        highest = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
        shrink = jnp.exp(before - highest)
        weights = jnp.exp(scores - highest)
        total = shrink * sum_ref[:, :1] + jnp.sum(weights, axis=1, keepdims=True)
        # 5) Values of this block. The int8 scale comes after the sum, which is of weights alone.
        if v_scale_ref is not None:
            weights = weights * v_scale_ref[0, 0]
        values = jax.lax.dot_general(
            weights.astype(q.dtype),
            v_ref[0, 0].astype(q.dtype),
            (((1,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        values_ref[...] = shrink * values_ref[...] + values
        max_ref[...] = jnp.broadcast_to(highest, max_ref.shape)
        sum_ref[...] = jnp.broadcast_to(total, sum_ref.shape)

    # 6) Divide once. Later blocks leave the result as it is.
    @pl.when(t == last)
    def _finish() -> None:
        out_ref[0, 0] = (values_ref[...] / sum_ref[:, :1]).astype(out_ref.dtype)
