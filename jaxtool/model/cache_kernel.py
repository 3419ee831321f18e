"""The kernel of `pallas_attention`: a ring of copies, a running softmax, and the scales of new tokens.

A round of the grid starts the copy of one block of positions and works on a block that was copied before. Several
copies are on their way at once, so the memory is busy while a block is worked on.
Not covered: which rounds there are (`kernel_walk`).

An example of the running softmax: one query whose scores are 1, 2 and 3, values 10, 20 and 30, in blocks
of two positions. The last position is beyond the query's own and masked.

  block 0: scores [1 2]       highest 2  weights [0.37 1]  sum 1.37                     values 23.7
  block 1: scores [3 masked]  highest 3  weights [1    0]  sum 0.37 x 1.37 + 1 = 1.50   values 38.7
  Out:     38.7 / 1.50 = 25.8, which is softmax([1 2 3]) . [10 20 30]

In block 1 the highest score rises by 1, so sum and values so far shrink by exp(2 - 3) = 0.37.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from jaxtool.model.attention import MASKED_SCORE
from jaxtool.model.kernel_walk import whole_part

# Of a page of 2048. Half of the last piece is copied in vain; each piece more costs 130 bundles of 930 (v6e).
_PIECE = 1024
LANES = 128  # of a TPU vector register: last axes come in multiples of it


def piece_of(block: int, can_end_early: bool) -> int:
    """Positions that one copy brings of a block that may end early, or of one that may not."""
    return _PIECE if can_end_early and block % _PIECE == 0 else block


@dataclasses.dataclass(frozen=True, kw_only=True)
class KernelLayout:
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

    @property
    def piece(self) -> int:
        """Positions of keys and values that one copy brings.

        Of the last page of a row only the pieces up to its token are copied. What the ring holds behind them is
        never seen: scores are masked, and int8 codes times a weight of 0 are 0. Other numbers might be no numbers.
        """
        return piece_of(self.block, self.is_step and self.is_scaled and self.blocks_of_page > 0)

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


def attention_kernel(layout: KernelLayout, *refs: Any) -> None:
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

    copies = _BlockCopies(
        layout=layout,
        walk_refs=(queries_ref, block_ref, pages_ref),
        position_refs=position_ref,
        sources=(k_ref, v_ref, *scale_refs),
        rings=rings,
        arrived=arrived,
    )

    # 1) The copies of this round. Their slot of the ring was worked on in the round before.
    @pl.when(t < count)
    def _fetch() -> None:
        copies.each(begin + t, jax.lax.rem(t, layout.depth), lambda copy: copy.start())

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
        copies.each(step, slot, lambda copy: copy.wait())

    if layout.is_writing:
        *stages, count_ref, sent = refs_left
        writes = _ScaleWrites(
            layout=layout,
            walk_refs=(queries_ref, block_ref, pages_ref),
            new_refs=new_refs,
            written_refs=written_refs,
            stages=stages,
            count_ref=count_ref,
            sent=sent,
        )
        is_inside = new_refs[0][queries] < layout.positions * max(1, layout.columns)
        pl.when(done == 0)(lambda: count_ref.__setitem__(0, 0))
        pl.when(is_last & is_inside)(lambda: writes.put(rings[2:], step, slot, queries))
        pl.when(is_live & (done == count - 1))(writes.finish)

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _BlockCopies:
    """A block of keys and values, and of scales, on its way into a slot of the rings."""

    layout: KernelLayout
    walk_refs: tuple[Any, ...]  # queries, block and page of a step
    position_refs: Sequence[Any]  # of one token a row
    sources: Sequence[Any]  # keys, values, and scales
    rings: Sequence[Any]
    arrived: Any  # [depth]

    def each(self, step: Any, slot: Any, do: Callable[[Any], None]) -> None:
        """`do` for every copy: all scales, and the pieces of keys and values that hold tokens."""
        layout = self.layout
        queries_ref, block_ref, _ = self.walk_refs
        row, start = layout.source(step, *self.walk_refs)

        def copy(source: Any, ring: Any, place: tuple[Any, ...]) -> None:
            part = pl.multiple_of(start + place[0], LANES), place[1]
            axes = (slice(None),) * (len(source.shape) - 3)  # of the numbers of a key
            there = ring.at[slot, :, pl.ds(*place), *axes]
            do(
                pltpu.make_async_copy(
                    source.at[row, :, pl.ds(*part), *axes], there, self.arrived.at[slot]
                )
            )

        def piece(begin: int) -> None:
            for source, ring in zip(self.sources[:2], self.rings[:2], strict=True):
                copy(source, ring, (begin, layout.piece))

        for source, ring in zip(self.sources[2:], self.rings[2:], strict=True):
            copy(source, ring, (0, layout.block))
        piece(0)
        for begin in range(layout.piece, layout.block, layout.piece):
            last = self.position_refs[0][queries_ref[step]] - block_ref[step] * layout.block
            pl.when(last >= begin)(functools.partial(piece, begin))


@dataclasses.dataclass(frozen=True, kw_only=True)
class _ScaleWrites:
    """The scales of new tokens on their way back, 128 positions of a row at a time.

    Two rows' writes may be on their way: a third one waits for the first, and the last step for both.
    """

    layout: KernelLayout
    walk_refs: tuple[Any, ...]  # queries, block and page of a step
    new_refs: Sequence[
        Any
    ]  # positions of the new tokens, their scales of keys and of values by row and head
    written_refs: Sequence[Any]
    stages: Sequence[Any]  # [2, K, 128]
    count_ref: Any  # writes begun
    sent: Any  # [2]

    def copies(self, number: Any, row: Any, tile: Any) -> list[Any]:
        which = jax.lax.rem(number, 2)
        return [
            pltpu.make_async_copy(
                stage.at[which], ref.at[row, :, pl.ds(tile, LANES)], self.sent.at[which]
            )
            for stage, ref in zip(self.stages, self.written_refs, strict=True)
        ]

    def put(self, rings: Sequence[Any], step: Any, slot: Any, queries: Any) -> None:
        """Puts the new scales into the last block of their row, and begins to write them."""
        row, start = self.layout.source(step, *self.walk_refs)
        new_at = jax.lax.rem(self.new_refs[0][queries], jnp.int32(self.layout.positions))
        at = pl.multiple_of(whole_part(new_at - start, LANES) * LANES, LANES)
        tile = pl.multiple_of(start + at, LANES)
        number = self.count_ref[0]

        @pl.when(number >= 2)
        def _room() -> None:
            for copy in self.copies(number, row, tile):
                copy.wait()

        lane = jax.lax.broadcasted_iota(jnp.int32, (1, LANES), 1)
        is_new, which = tile + lane == new_at, jax.lax.rem(number, 2)
        for ring, stage, new in zip(rings, self.stages, self.new_refs[1:], strict=True):
            for i in range(ring.shape[1]):
                scales = ring[slot, i : i + 1, pl.ds(at, LANES)]
                scales = jnp.where(is_new, new[queries * ring.shape[1] + i], scales)
                ring[slot, i : i + 1, pl.ds(at, LANES)] = scales
                stage[which, i : i + 1] = scales
        for copy in self.copies(number, row, tile):
            copy.start()
        self.count_ref[0] = number + 1

    def finish(self) -> None:
        """Waits for what is on its way."""
        for back in (1, 2):

            @pl.when(self.count_ref[0] >= back)
            def _sent(back: int = back) -> None:
                for copy in self.copies(self.count_ref[0] - back, 0, 0):
                    copy.wait()


def _add_block(
    layout: KernelLayout,
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
