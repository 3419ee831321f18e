"""Attention over the KV cache as a Pallas TPU kernel: blocks of positions, running softmax.

The method is FlashAttention-2's (2307.08691, algorithm 1): one pass over the keys with a running
maximum and sum. A row reads the blocks up to its own longest position and no more, so short rows do
not pay for long neighbours. All key heads of a device are in one block, so a grid step has work enough
to hide its own cost. int8 caches are scaled inside: scores by the key's, weights by the value's.
A paged cache is read through a table: a block of positions is then a part of one page, and rows without a
position in the table take no step.
Not covered: gradients, other platforms; what the kernel computes (`cache_kernel`).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

from jaxtool.model.cache_kernel import LANES, KernelLayout, attention_kernel
from jaxtool.model.kernel_walk import walk_of, walk_step
from jaxtool.model.kv_cache import LayerCache

_MOST_QUERIES = 512  # of a query block
_MOST_POSITIONS = 2048
# Of one block of keys, and of the float32 scores of one head: some of each are in the vector memory at
# once, of which the smallest chip (v5e) lets a kernel have 16 MiB.
_MOST_KEY_BYTES = 2 << 20
_MOST_SCORE_BYTES = 1 << 20
KERNEL = "attention_over_cache"  # its name in compiled programs
_MOST_IN_FLIGHT = 4  # blocks of positions: one that is worked on, three on their way
_MOST_RING_BYTES = 8 << 20  # of them together
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
    position_block = min(position_block, held)  # fewer than 128 there are in tests alone
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
    spread = jnp.pad(
        jnp.repeat(at, group, axis=1),
        ((0, 0), (0, padding)),
        constant_values=0 if table is None else -1,
    ).reshape(b * per_row, query_block)
    # 3) The grid has the steps that see something and no others, so it is as long as rows are. Copies run
    #    ahead of them, so there are a few more rounds than steps.
    walk = walk_of(jnp.max(spread, axis=1) // position_block, num_blocks)
    parts = walk.first.shape[0] - 1
    steps = jnp.max(walk.first[1:] - walk.first[:-1])
    block_bytes = 2 * kv * position_block * h * cache.k.dtype.itemsize
    depth = max(2, min(_MOST_IN_FLIGHT, _MOST_RING_BYTES // block_bytes))
    rounds = jnp.where(steps > 0, steps + depth - 1, 0)

    def queries_at(part: Any, t: Any, *tables: Any) -> tuple[Any, ...]:
        return tables[1][walk_step(part, t - (depth - 1), tables[0])], 0, 0, 0

    # 4) What the scalar unit reads. One token a row: its position is one number. Else each query has its own.
    is_step = c == 1
    tables: tuple[Array, ...] = walk
    if is_step:
        tables = (*tables, at[:, 0])
    if table is not None:  # any page where there is none: only what is masked is read there
        tables = (*tables, jnp.minimum(table, cache.k.shape[0] - 1).reshape(-1))
    if new_scales is not None:
        tables = (*tables, positions[:, 0], *(x.reshape(-1) for x in new_scales))
    scales = [x for x in (cache.k_scale, cache.v_scale) if x is not None]
    written = scales if new_scales is not None else []
    query_spec = pl.BlockSpec((1, kv, query_block, h), queries_at)
    at_spec = pl.BlockSpec((1, query_block, 1), lambda *step: queries_at(*step)[:3])
    whole = pl.BlockSpec(memory_space=pl.ANY)
    held_at = [] if is_step else [spread[:, :, None]]
    # Aliases count all arguments, the tables as well; the scales are the last two.
    first_scale = len(tables) + 3 + len(held_at)
    # 5) One step after the other ("arbitrary"), so that the scratch memory carries maximum, sum and
    #    values from block to block.
    out, *written = pl.pallas_call(
        functools.partial(
            attention_kernel,
            KernelLayout(
                depth=depth,
                block=position_block,
                positions=held,
                blocks_of_page=held // position_block if table is not None else 0,
                columns=table.shape[1] if table is not None else 0,
                queries_of_row=per_row,
                is_step=is_step,
                is_scaled=bool(scales),
                is_writing=bool(written),
            ),
        ),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=len(tables),
            grid=(parts, rounds),
            in_specs=[query_spec, whole, whole, *[at_spec] * len(held_at), *[whole] * len(scales)],
            out_specs=[query_spec, *[whole] * len(written)],
            scratch_shapes=[
                pltpu.VMEM((kv, query_block, LANES), jnp.float32),
                pltpu.VMEM((kv, query_block, LANES), jnp.float32),
                pltpu.VMEM((kv, query_block, h), jnp.float32),
                pltpu.VMEM((depth, kv, position_block, h), cache.k.dtype),
                pltpu.VMEM((depth, kv, position_block, h), cache.v.dtype),
                *[pltpu.VMEM((depth, kv, position_block), x.dtype) for x in scales],
                pltpu.SemaphoreType.DMA((depth,)),
                *[pltpu.VMEM((2, kv, LANES), x.dtype) for x in written],
                *[pltpu.SMEM((1,), jnp.int32)] * bool(written),
                *[pltpu.SemaphoreType.DMA((2,))] * bool(written),
            ],
        ),
        out_shape=[jax.ShapeDtypeStruct(queries.shape, q.dtype)]
        + [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in written],
        input_output_aliases={first_scale + i: 1 + i for i in range(len(written))},
        compiler_params=pltpu.CompilerParams(dimension_semantics=("parallel", "arbitrary")),
        name=KERNEL,
        interpret=interpret,
    )(*tables, queries, cache.k, cache.v, *held_at, *scales)
    # 6) Back to the order of the queries, without those that filled up.
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
