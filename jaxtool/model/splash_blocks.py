"""Blocks of the splash kernel: how large they are, and which of them a packed row needs."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jaxtyping import Array, Bool, Int

# Per block of queries or keys, and keys that the forward kernel computes at once; multiples of 128. Chosen by the
# bundles of the three kernels and by what larger blocks cannot skip (docs/plans.md).
_MOST_TOKENS = 1024
_MOST_AT_ONCE = 512


def block_sizes(length: int) -> splash.BlockSizes:
    """Of rows, or chunks of rows, of `length` tokens, which no block crosses."""
    size = math.gcd(length, _MOST_TOKENS)
    return splash.BlockSizes(
        block_q=size,
        block_kv=size,
        block_kv_compute=min(size, _MOST_AT_ONCE),
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )


def busy_blocks(kernel: Any, segments: Int[Array, " Q"], key_segments: Int[Array, " T"]) -> Any:
    """The kernel without those blocks in which no query's segment is a key's. Results are the same bits.

    Args:
      kernel: of a row, or of a device's part of its queries; its own tables leave out later keys.
      segments: -1 for a query that looks at nothing.
    """
    sizes = kernel.kwargs["block_sizes"]

    def left(info: Any, queries: int | None, keys: int | None, *, by_keys: bool = False) -> Any:
        if info is None:
            return None
        assert queries is not None
        assert keys is not None
        is_busy = (info.block_mask[0] > 0) & _meet(segments, key_segments, queries, keys)
        order = is_busy.T if by_keys else is_busy
        following = _next_busy(order)
        following = following.T if by_keys else following
        return info._replace(
            data_next=following.astype(info.data_next.dtype)[None],
            block_mask=jnp.where(is_busy, info.block_mask[0], 0).astype(info.block_mask.dtype)[
                None
            ],
        )

    return splash.SplashAttentionKernel(
        left(kernel.fwd_mask_info, sizes.block_q, sizes.block_kv),
        left(kernel.dq_mask_info, sizes.block_q_dq, sizes.block_kv_dq),
        left(kernel.dkv_mask_info, sizes.block_q_dkv, sizes.block_kv_dkv, by_keys=True),
        **kernel.kwargs,
    )


def _meet(
    segments: Int[Array, " Q"], key_segments: Int[Array, " T"], queries: int, keys: int
) -> Bool[Array, "q t"]:
    """Whether the range of segments of a block of queries meets that of a block of keys.

    Segments rise along a row, so that a range is what a block holds. Padding, 0 at the row's end, counts as
    the largest; -1 is in no range.
    """
    largest = jnp.iinfo(jnp.int32).max

    def ranges(ids: Array, size: int) -> tuple[Array, Array]:
        blocks = jnp.where(ids == 0, largest, ids).reshape(-1, size)
        least = jnp.min(jnp.where(blocks < 0, largest, blocks), axis=1)
        return least, jnp.max(blocks, axis=1)

    (low, high), (key_low, key_high) = ranges(segments, queries), ranges(key_segments, keys)
    return (low[:, None] <= key_high[None]) & (key_low[None] <= high[:, None])


def _next_busy(is_busy: Bool[Array, "i j"]) -> Int[Array, "i j"]:
    """Column of the first busy block at or after each one, in the order of rows; 0 after the last.

    The kernel fetches it in good time: [[1, 0, 0], [0, 1, 1]] -> [[0, 1, 1], [1, 1, 2]].
    """
    count = is_busy.size
    own = jnp.where(is_busy.ravel(), jnp.arange(count), count)
    following = jax.lax.cummin(own, reverse=True).reshape(is_busy.shape)
    return jnp.where(following < count, following % is_busy.shape[1], 0)
