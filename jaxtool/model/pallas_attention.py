"""Attention over the KV cache as a Pallas TPU kernel: blocks of positions, running softmax.

The method is FlashAttention-2's (2307.08691, algorithm 1): one pass over the keys with a running
maximum and sum. A row reads the blocks up to its own longest position and no more, so short rows do
not pay for long neighbours. All key heads of a device are in one block, so a grid step has work enough
to hide its own cost. int8 caches are scaled inside: scores by the key's, weights by the value's.
A paged cache is read through a table: a block of positions is then a part of one page, and rows without a
position in the table take no step.
Not covered: gradients, other platforms.

An example of the running softmax: one query whose scores are 1, 2 and 3, values 10, 20 and 30, in blocks
of two positions. The last position is beyond the query's own and masked.

  block 0: scores [1 2]       highest 2  weights [0.37 1]  sum 1.37                     values 23.7
  block 1: scores [3 masked]  highest 3  weights [1    0]  sum 0.37 x 1.37 + 1 = 1.50   values 38.7
  Out:     38.7 / 1.50 = 25.8, which is softmax([1 2 3]) . [10 20 30]

In block 1 the highest score rises by 1, so sum and values so far shrink by exp(2 - 3) = 0.37.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import MASKED_SCORE
from jaxtool.model.kernel_walk import walk_of, walk_step, whole_part
from jaxtool.model.kv_cache import LayerCache

LANES = 128  # of a TPU vector register: last axes come in multiples of it
_MOST_QUERIES = 512  # of a query block
_MOST_POSITIONS = 2048
# Of one block of keys, and of the float32 scores of one head: some of each are in the vector memory at
# once, of which the smallest chip (v5e) lets a kernel have 16 MiB.
_MOST_KEY_BYTES = 2 << 20
_MOST_SCORE_BYTES = 1 << 20
KERNEL = "attention_over_cache"  # its name in compiled programs
_MOST_STEPS = 1 << 16  # of a grid: 2 tables of 4 bytes a step are half of the scalar memory


NewScales = tuple[Float[Array, "B K"], Float[Array, "B K"]]


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
    return _attend(q, cache, positions, None, interpret=interpret)[0]


def flash_writing_attention(
    q: Float[Array, "B 1 N H"],
    cache: LayerCache,
    positions: Int[Array, "B 1"],
    new_scales: NewScales,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B 1 N H"], LayerCache]:
    """`flash_cached_attention` of one token a row over an int8 cache that lacks the scales of that token.

    The kernel writes them in place while it is at their block. Written by a scatter, the scales of the whole
    cache change their layout, there and back, in every layer of every step.

    Args:
      cache: holds the values of the new tokens already.
      positions: those >= S are not written.
      new_scales: of keys and of values.
    """
    out, scales = _attend(q, cache, positions, new_scales, interpret=interpret)
    return out, LayerCache(cache.k, cache.v, *scales)


def flash_paged_attention(
    q: Float[Array, "B C N H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    table: Int[Array, "B n"],
    new_scales: NewScales | None = None,
    *,
    interpret: bool = False,
) -> tuple[Float[Array, "B C N H"], LayerCache]:
    """The same over a pool of pages [P, K, page, H], see `paged_attention`; page must be a multiple of 128.

    Args:
      positions: a row all of whose positions are beyond its table takes no time, and gets zeros.
      table: entries of P are no pages.
      new_scales: as in `flash_writing_attention`; every row that is written to has a page of its own there.
    """
    out, scales = _attend(q, cache, positions, new_scales, table, interpret=interpret)
    is_seen = positions < table.shape[1] * cache.k.shape[2]
    out = jnp.where(is_seen[:, :, None, None], out, 0)
    return out, LayerCache(cache.k, cache.v, *scales) if scales else cache


def _attend(
    q: Array,
    cache: LayerCache,
    positions: Array,
    new_scales: NewScales | None,
    table: Array | None = None,
    *,
    interpret: bool,
) -> tuple[Array, list[Array]]:
    """Attention, and the cache's scales with the new ones in them: none without new ones."""
    b, c, n, h = q.shape
    kv, held = cache.k.shape[1:3]  # positions of a row, or of a page
    s = held if table is None else held * table.shape[1]
    group = n // kv
    # 1) Blocks of queries: multiples of the 8 rows of a vector register. The query heads of one token
    #    stand together, so a block spans few positions.
    query_block, position_block = blocks_of(c * group, held, kv * h * cache.k.dtype.itemsize)
    if table is not None:
        position_block = part_of_page(held, position_block)
    per_row = -(-c * group // query_block)  # query blocks of a row
    num_blocks = -(-s // position_block)
    is_long = b * per_row * num_blocks > _MOST_STEPS  # whole prompts, many and long
    if is_long and b > 1 and new_scales is None:
        rows = (q, positions, cache if table is None else table)
        halves = [
            jax.tree.map(lambda x: x[: b // 2], rows),
            jax.tree.map(lambda x: x[b // 2 :], rows),
        ]
        outs = [
            _attend(q, of, at, None, interpret=interpret)[0]
            if table is None
            else _attend(q, cache, at, None, of, interpret=interpret)[0]
            for q, at, of in halves
        ]
        return jnp.concatenate(outs), []
    # 2) Queries [P, K, block, H], P = B x blocks of a row. Those that fill up the last block stand at
    #    position 0: they see one key, so no softmax is empty. In pages at -1, as all that has no position in
    #    the table: a block of such queries sees no block of positions.
    padding = per_row * query_block - c * group
    queries = q.reshape(b, c, kv, group, h).transpose(0, 2, 1, 3, 4).reshape(b, kv, c * group, h)
    queries = jnp.pad(queries, ((0, 0), (0, 0), (0, padding), (0, 0)))
    queries = queries.reshape(b, kv, per_row, query_block, h).swapaxes(1, 2)
    queries = queries.reshape(b * per_row, kv, query_block, h)
    at = jnp.minimum(positions, s - 1) if table is None else jnp.where(positions < s, positions, -1)
    at = jnp.pad(
        jnp.repeat(at, group, axis=1),
        ((0, 0), (0, padding)),
        constant_values=0 if table is None else -1,
    ).reshape(b * per_row, query_block)
    # 3) The grid has the steps that see something and no others, so it is as long as rows are.
    walk = walk_of(jnp.max(at, axis=1) // position_block, num_blocks)
    parts = walk.first.shape[0] - 1
    steps = jnp.max(walk.first[1:] - walk.first[:-1])

    def queries_at(part: Any, t: Any, *walk: Any) -> tuple[Any, ...]:
        return walk[1][walk_step(part, t, walk[0])], 0, 0, 0

    def at_at(part: Any, t: Any, *walk: Any) -> tuple[Any, ...]:
        return walk[1][walk_step(part, t, walk[0])], 0, 0

    columns, parts_of_page = (0, 1) if table is None else (table.shape[1], held // position_block)

    def block_at(queries: Any, block: Any, *walk: Any) -> tuple[Any, ...]:
        row = whole_part(queries, per_row)
        if not columns:
            return row, 0, block
        page = walk[4][row * columns + whole_part(block, parts_of_page)]
        return page, 0, jax.lax.rem(block, jnp.int32(parts_of_page))

    def positions_at(part: Any, t: Any, *walk: Any) -> tuple[Any, ...]:
        step = walk_step(part, t, walk[0])
        return (*block_at(walk[1][step], walk[2][step], *walk), 0)

    def scales_at(part: Any, t: Any, *walk: Any) -> tuple[Any, ...]:
        return positions_at(part, t, *walk)[:3]

    query_spec = pl.BlockSpec((1, kv, query_block, h), queries_at)

    def last_scales_at(part: Any, t: Any, *walk: Any) -> tuple[Any, ...]:
        queries = walk[1][walk_step(part, t, walk[0])]
        return block_at(queries, walk[3][queries], *walk)

    position_spec = pl.BlockSpec((1, kv, position_block, h), positions_at)
    scales = [x for x in (cache.k_scale, cache.v_scale) if x is not None]
    # 4) One step after the other ("arbitrary"), so that the scratch memory carries maximum, sum and
    #    values from block to block.
    tables: tuple[Array, ...] = walk
    if table is not None:  # any page where there is none: only what is masked is read there
        tables = (*walk, jnp.minimum(table, cache.k.shape[0] - 1).reshape(-1))
    is_writing = new_scales is not None
    if new_scales is not None:
        tables = (*tables, positions[:, 0], *(x.reshape(-1) for x in new_scales))
    written = scales if is_writing else []
    # Aliases count all arguments, the tables as well; the scales are the last two.
    first_scale = len(tables) + 4
    out, *written = pl.pallas_call(
        functools.partial(
            _kernel,
            is_scaled=bool(scales),
            is_writing=is_writing,
            is_paged=table is not None,
            end=s if s % position_block else None,
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(tables),
            grid=(parts, steps),
            in_specs=[
                query_spec,
                position_spec,
                position_spec,
                pl.BlockSpec((1, query_block, 1), at_at),
            ]
            + [pl.BlockSpec((1, kv, position_block), scales_at)] * len(scales),
            out_specs=[query_spec]
            + [pl.BlockSpec((1, kv, position_block), last_scales_at)] * len(written),
            scratch_shapes=[
                pltpu.VMEM((kv, query_block, LANES), jnp.float32),
                pltpu.VMEM((kv, query_block, LANES), jnp.float32),
                pltpu.VMEM((kv, query_block, h), jnp.float32),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(queries.shape, q.dtype)]
        + [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in written],
        input_output_aliases={first_scale + i: 1 + i for i in range(len(written))},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=KERNEL,
        interpret=interpret,
    )(*tables, queries, cache.k, cache.v, at[:, :, None], *scales)
    # 5) Back to the order of the queries, without those that filled up.
    out = out.reshape(b, per_row, kv, query_block, h).swapaxes(1, 2)
    out = out.reshape(b, kv, per_row * query_block, h)[:, :, : c * group]
    return out.reshape(b, kv, c, group, h).transpose(0, 2, 1, 3, 4).reshape(b, c, n, h), written


def blocks_of(queries: int, positions: int, position_bytes: int) -> tuple[int, int]:
    """Queries and positions of a block, the latter a multiple of 128: as equal blocks as there must be.

    Args:
      queries: of a row and key head.
      positions: of the cache.
      position_bytes: of the keys of one position, all key heads of a device.

    Examples, 2 key heads of 128 in bfloat16, a decode step: 18 432 positions are 9 blocks of 2048, 3584 are
    2 of 1792. 2176 are 2 of 1152, the second of which ends beyond the cache.
    """
    query_block = min(-(-queries // 8) * 8, _MOST_QUERIES)
    scores = _MOST_SCORE_BYTES // 4 // query_block
    most = min(_MOST_POSITIONS, _MOST_KEY_BYTES // position_bytes, scores)
    most = max(LANES, most // LANES * LANES)
    count = -(-positions // most)
    return query_block, -(-positions // count // LANES) * LANES


def part_of_page(page: int, position_block: int) -> int:
    """Positions of a block that divides a page, the largest multiple of 128 up to `position_block`.

    A page of 2048 and blocks of up to 512 positions: 512. A page of 2176 = 17 x 128 and 1152: 128.
    """
    return next(x for x in range(position_block, 0, -LANES) if page % x == 0)


def _kernel(*refs: Any, is_scaled: bool, is_writing: bool, is_paged: bool, end: int | None):
    """One block of positions of one block of queries: max, sum and weighted values so far, by key head.

    Args:
      is_writing: `new_refs` are the row's position and the scales of its new token, by row and head.
      end: of the cache's positions, where the last block goes beyond it; None: it does not.
    """
    first_ref, queries_ref, block_ref, last_ref, *rest = refs
    rest = rest[1:] if is_paged else rest  # the table of pages is for the copies alone
    new_refs, rest = (rest[:3], rest[3:]) if is_writing else ([], rest)
    q_ref, k_ref, v_ref, at_ref, *rest = rest
    scale_refs = rest[:2] if is_scaled else []
    max_ref, sum_ref, values_ref = rest[-3:]
    out_ref, *written_refs = rest[2 if is_scaled else 0 : -3]
    kv, positions = k_ref.shape[1:3]
    part, t = pl.program_id(0), pl.program_id(1)
    step = walk_step(part, t, first_ref)
    block, last = block_ref[step], last_ref[queries_ref[step]]
    is_live = first_ref[part] + t < first_ref[part + 1]

    # 1) Nothing seen yet.
    @pl.when(is_live & (block == 0))
    def _start() -> None:
        max_ref[...] = jnp.full_like(max_ref, MASKED_SCORE)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        values_ref[...] = jnp.zeros_like(values_ref)

    # 2) Beyond the end of a part there is neither a copy nor a product.
    @pl.when(is_live)
    def _add() -> None:
        for i in range(kv):
            # 3) Scores of this block. A key's int8 scale is one number for all of H, so it multiplies the
            #    score in place of the key.
            q, k, v = q_ref[0, i], k_ref[0, i], v_ref[0, i]
            scores = jax.lax.dot_general(
                q, k.astype(q.dtype), (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
            )
            scores = scores * q.shape[-1] ** -0.5
            position = block * positions + jax.lax.broadcasted_iota(jnp.int32, scores.shape, 1)
            scales = [ref[0, i : i + 1] for ref in scale_refs]
            if is_writing:
                # What the last block writes stays. One token a row is one block of queries.
                row, (new_at_ref, *new) = queries_ref[step], new_refs
                scales = [
                    jnp.where(position[:1] == new_at_ref[row], ref[row * kv + i], scale)
                    for ref, scale in zip(new, scales, strict=True)
                ]
                for ref, scale in zip(written_refs, scales, strict=True):
                    ref[0, i : i + 1] = scale
            if scales:
                scores = scores * scales[0]
            scores = jnp.where(position <= at_ref[0], scores, MASKED_SCORE)
            # 4) The highest score so far; what was summed under a lower one shrinks to the new one. All
            #    lanes of a scratch row hold the same number, for a register cannot be narrower.
            before = max_ref[i][:, :1]
            highest = jnp.maximum(before, jnp.max(scores, axis=1, keepdims=True))
            shrink = jnp.exp(before - highest)
            weights = jnp.exp(scores - highest)
            total = shrink * sum_ref[i][:, :1] + jnp.sum(weights, axis=1, keepdims=True)
            # 5) Values of this block. The int8 scale comes after the sum, which is of weights alone.
            if scales:
                weights = weights * scales[1]
            if end is not None:  # what lies beyond the cache may be no number, and 0 x NaN is NaN
                weights = jnp.where(position < end, weights, 0.0)
                row = block * positions + jax.lax.broadcasted_iota(jnp.int32, v.shape, 0)
                v = jnp.where(row < end, v.astype(jnp.float32), 0.0)
            values = jax.lax.dot_general(
                weights.astype(q.dtype),
                v.astype(q.dtype),
                (((1,), (0,)), ((), ())),
                preferred_element_type=jnp.float32,
            )
            values_ref[i] = shrink * values_ref[i] + values
            max_ref[i] = jnp.broadcast_to(highest, max_ref.shape[1:])
            sum_ref[i] = jnp.broadcast_to(total, sum_ref.shape[1:])

    # 6) Divide once.
    @pl.when(is_live & (block == last))
    def _finish() -> None:
        for i in range(kv):
            out_ref[0, i] = (values_ref[i] / sum_ref[i][:, :1]).astype(out_ref.dtype)
