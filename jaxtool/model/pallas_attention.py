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

import dataclasses
import functools
from collections.abc import Sequence
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
            _kernel,
            _Layout(
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Layout:
    """What the kernel knows of its arrays before it runs."""

    depth: int  # of the ring: blocks of positions that are being copied or worked on
    block: int  # positions of a block
    positions: int  # of a row of the cache, or of a page
    blocks_of_page: int  # 0: no pages
    columns: int  # of the table of pages
    queries_of_row: int  # blocks of queries
    is_step: bool  # one token a row
    is_scaled: bool
    is_writing: bool

    def source(self, step: Any, queries_ref: Any, block_ref: Any, pages_ref: Any) -> Any:
        """Row or page of a step's block, and where in it the block begins."""
        row = whole_part(queries_ref[step], self.queries_of_row)
        block = block_ref[step]
        if pages_ref is None:
            start = block * self.block
            # The last block begins early where it would end beyond the cache.
            if self.positions % self.block:
                start = jnp.minimum(start, self.positions - self.block)
            return row, pl.multiple_of(start, LANES)
        page = pages_ref[row * self.columns + whole_part(block, self.blocks_of_page)]
        if self.blocks_of_page == 1:
            return page, 0
        inside = jax.lax.rem(block, jnp.int32(self.blocks_of_page)) * self.block
        return page, pl.multiple_of(inside, LANES)


def _kernel(layout: _Layout, *refs: Any) -> None:
    """A round of the grid: starts the copy of one block of positions, and works on the block copied before.

    A block is copied `depth - 1` rounds before its work, so that as many copies are on their way at once.
    """
    refs_left = list(refs)

    def take(count: int) -> list[Any]:
        taken, refs_left[:count] = refs_left[:count], []
        return taken

    first_ref, queries_ref, block_ref, last_ref = take(4)
    position_ref = take(layout.is_step)
    pages_ref = (take(bool(layout.blocks_of_page)) or [None])[0]
    new_refs = take(3 * layout.is_writing)
    q_ref, k_ref, v_ref = take(3)
    at_ref = take(not layout.is_step)
    scale_refs = take(2 * layout.is_scaled)
    (out_ref,) = take(1)
    written_refs = take(2 * layout.is_writing)
    max_ref, sum_ref, values_ref, *rings = take(5 + 2 * layout.is_scaled)
    (arrived,) = take(1)
    part, t = pl.program_id(0), pl.program_id(1)
    begin = first_ref[part]
    count = first_ref[part + 1] - begin

    def copies(step: Any, slot: Any) -> list[Any]:
        row, start = layout.source(step, queries_ref, block_ref, pages_ref)
        at = pl.ds(start, layout.block)
        sources = [k_ref.at[row, :, at, :], v_ref.at[row, :, at, :]]
        sources += [x.at[row, :, at] for x in scale_refs]
        return [
            pltpu.make_async_copy(source, ring.at[slot], arrived.at[slot])
            for source, ring in zip(sources, rings, strict=True)
        ]

    # 1) The copy of this round. Its slot of the ring was worked on in the round before.
    @pl.when(t < count)
    def _fetch() -> None:
        for copy in copies(begin + t, jax.lax.rem(t, layout.depth)):
            copy.start()

    done = t - (layout.depth - 1)
    is_live = (done >= 0) & (done < count)
    step = begin + jnp.clip(done, 0, jnp.maximum(count - 1, 0))
    slot = jax.lax.rem(jnp.maximum(done, 0), layout.depth)
    queries, block = queries_ref[step], block_ref[step]
    is_last = is_live & (block == last_ref[queries])

    # 2) Nothing seen yet.
    @pl.when(is_live & (block == 0))
    def _start() -> None:
        max_ref[...] = jnp.full_like(max_ref, MASKED_SCORE)
        sum_ref[...] = jnp.zeros_like(sum_ref)
        values_ref[...] = jnp.zeros_like(values_ref)

    # 3) The token's own scales go into the last block of its row, before they are used.
    @pl.when(is_live)
    def _arrive() -> None:
        for copy in copies(step, slot):
            copy.wait()

    if layout.is_writing:
        _write_scales(
            layout,
            (done == 0, is_last, is_live & (done == count - 1)),
            (step, slot, queries),
            (queries_ref, block_ref, pages_ref),
            new_refs,
            rings[2:],
            written_refs,
            refs_left,
        )

    # 4) Beyond the end of a part there is no product.
    @pl.when(is_live)
    def _add() -> None:
        at = position_ref[0][queries] if layout.is_step else at_ref[0][0]
        _add_block(layout, block, slot, at, q_ref, rings, max_ref, sum_ref, values_ref)

    # 5) Divide once.
    @pl.when(is_last)
    def _finish() -> None:
        for i in range(q_ref.shape[1]):
            out_ref[0, i] = (values_ref[i] / sum_ref[i][:, :1]).astype(out_ref.dtype)


def _write_scales(
    layout: _Layout,
    when: tuple[Any, Any, Any],
    place: tuple[Any, Any, Any],
    walk_refs: tuple[Any, ...],
    new_refs: Sequence[Any],
    rings: Sequence[Any],
    written_refs: Sequence[Any],
    scratch: Sequence[Any],
) -> None:
    """Puts the scales of a row's new token into its last block, and writes the 128 around it back.

    Two such writes may be on their way: a third one waits for the first, and the last step for both.

    Args:
      when: this is the first step of the part, the last one of a row, the last one of the part.
      place: the step, its slot in the rings, its block of queries.
      new_refs: positions of the new tokens, their scales of keys and of values by row and head.
    """
    is_first, is_last, is_end = when
    step, slot, queries = place
    *stages, count_ref, sent = scratch
    new_at_ref, *news = new_refs
    new_at = new_at_ref[queries]
    kv = rings[0].shape[1]

    def writes(number: Any) -> list[Any]:
        row, start = layout.source(step, *walk_refs)
        tile = pl.multiple_of(start + tile_of(start), LANES)
        which = jax.lax.rem(number, 2)
        return [
            pltpu.make_async_copy(
                stage.at[which], ref.at[row, :, pl.ds(tile, LANES)], sent.at[which]
            )
            for stage, ref in zip(stages, written_refs, strict=True)
        ]

    def tile_of(start: Any) -> Any:
        # Where in the block the 128 positions begin that have the new one; `start` as in its page.
        inside = jax.lax.rem(new_at, jnp.int32(layout.positions)) - start
        return pl.multiple_of(whole_part(inside, LANES) * LANES, LANES)

    @pl.when(is_first)
    def _none() -> None:
        count_ref[0] = 0

    is_inside = new_at < layout.positions * max(1, layout.columns)

    @pl.when(is_last & is_inside)
    def _write() -> None:
        number = count_ref[0]

        @pl.when(number >= 2)
        def _room() -> None:
            for write in writes(number):
                write.wait()

        _, start = layout.source(step, *walk_refs)
        at = tile_of(start)
        lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
        is_new = start + at + lane == jax.lax.rem(new_at, jnp.int32(layout.positions))
        which = jax.lax.rem(number, 2)
        for ring, stage, new in zip(rings, stages, news, strict=True):
            for i in range(kv):
                tile = ring[slot, i : i + 1, pl.ds(at, LANES)]
                tile = jnp.where(is_new, new[queries * kv + i], tile)
                ring[slot, i : i + 1, pl.ds(at, LANES)] = tile
                stage[which, i : i + 1] = tile
        for write in writes(number):
            write.start()
        count_ref[0] = number + 1

    @pl.when(is_end)
    def _wait() -> None:
        for back in (1, 2):

            @pl.when(count_ref[0] >= back)
            def _sent(back: int = back) -> None:
                for write in writes(count_ref[0] - back):
                    write.wait()


def _add_block(
    layout: _Layout,
    block: Any,
    slot: Any,
    at: Any,
    q_ref: Any,
    rings: Sequence[Any],
    max_ref: Any,
    sum_ref: Any,
    values_ref: Any,
) -> None:
    """Adds a block of positions to maximum, sum and weighted values of its queries, by key head.

    All heads do one thing before the next: a head's products then run while another waits for its own.

    Args:
      at: positions of the queries: one number, or [block, 1].
    """
    k_ring, v_ring, *scale_rings = rings
    heads = range(q_ref.shape[1])
    # 1) Scores of this block. A key's int8 scale is one number for all of H, so it multiplies the score in
    #    place of the key.
    queries = [q_ref[0, i] for i in heads]
    dtype, width = queries[0].dtype, queries[0].shape[-1]
    scores = [
        jax.lax.dot_general(
            queries[i],
            k_ring[slot, i].astype(dtype),
            (((1,), (1,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        for i in heads
    ]
    begin = block * layout.block
    position = jax.lax.broadcasted_iota(jnp.int32, scores[0].shape, 1)
    seen = position <= at - begin
    if not layout.blocks_of_page and layout.positions % layout.block:
        # The last block begins early, with positions that the one before it had.
        start = jnp.minimum(begin, layout.positions - layout.block)
        seen = (position <= at - start) & (position >= begin - start)
    for i in heads:
        scores[i] = scores[i] * width**-0.5
        if layout.is_scaled:
            scores[i] = scores[i] * scale_rings[0][slot, i : i + 1]
        scores[i] = jnp.where(seen, scores[i], MASKED_SCORE)
    # 2) The highest score so far; what was summed under a lower one shrinks to the new one. All lanes of a
    #    scratch row hold the same number, for a register cannot be narrower.
    before = [max_ref[i][:, :1] for i in heads]
    highest = [jnp.maximum(before[i], jnp.max(scores[i], axis=1, keepdims=True)) for i in heads]
    shrink = [jnp.exp(before[i] - highest[i]) for i in heads]
    weights = [jnp.exp(scores[i] - highest[i]) for i in heads]
    total = [
        shrink[i] * sum_ref[i][:, :1] + jnp.sum(weights[i], axis=1, keepdims=True) for i in heads
    ]
    # 3) Values of this block. The int8 scale comes after the sum, which is of weights alone.
    if layout.is_scaled:
        weights = [weights[i] * scale_rings[1][slot, i : i + 1] for i in heads]
    values = [
        jax.lax.dot_general(
            weights[i].astype(dtype),
            v_ring[slot, i].astype(dtype),
            (((1,), (0,)), ((), ())),
            preferred_element_type=jnp.float32,
        )
        for i in heads
    ]
    for i in heads:
        values_ref[i] = shrink[i] * values_ref[i] + values[i]
        max_ref[i] = jnp.broadcast_to(highest[i], max_ref.shape[1:])
        sum_ref[i] = jnp.broadcast_to(total[i], sum_ref.shape[1:])
