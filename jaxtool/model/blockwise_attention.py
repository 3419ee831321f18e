"""Training attention by XLA: queries in spans that leave out later keys, and in blocks if asked.

Equal to `attention` wherever a token has a key at all, because a query's softmax still runs over all of
its keys at once; only the queries are split. Not covered: leaving out keys of earlier segments, which is
what the accelerators' kernels are for.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import Places, attention, segment_mask

# Each span is traced on its own: more of them save less and less (8 leave out 44 % of the scores, at
# most half can be) and cost compile time. Shorter ones than 64 tokens gain nothing on a CPU.
_MAX_SPANS = 8
_MIN_SPAN = 64


def row_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    *,
    attention_block: int | None,
    prefix_ids: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T N H"]:
    """`attention` of whole packed rows under `segment_mask`; padding gets numbers that mean nothing.

    A span of queries sees the keys up to its own end: the tokens of a segment must stand in the order
    of their positions, and a prefix before what continues it, as packing puts them.

    Args:
      attention_block: queries whose scores exist at once, in both passes; None: a span's, kept for the backward.
      prefix_ids: as for `segment_mask`.
    """
    dtype, length = q.dtype, q.shape[1]
    span = max(_MIN_SPAN, -(-length // _MAX_SPANS))
    # The gradients of keys and values are summed over spans in the dtype that the spans are sliced in.
    k, v = k.astype(jnp.float32), v.astype(jnp.float32)
    outs: list[Array] = []
    for begin in range(0, length, span):
        end = min(begin + span, length)
        segments, at = segment_ids[:, begin:end], positions[:, begin:end]
        places = segment_ids[:, :end], positions[:, :end]
        prefixes = None if prefix_ids is None else prefix_ids[:, begin:end]
        queries, keys, values = q[:, begin:end], k[:, :end], v[:, :end]
        if attention_block is None:
            mask = segment_mask(segments, at, places, prefixes)
            outs.append(attention(queries, keys.astype(dtype), values.astype(dtype), mask))
        else:
            outs.append(
                blockwise_attention(
                    *(queries, keys, values, segments, at, places, prefixes),
                    attention_block=attention_block,
                )
            )
    return jnp.concatenate(outs, axis=1)


def blockwise_attention(
    q: Float[Array, "B Q N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B Q"],
    positions: Int[Array, "B Q"],
    keys: Places | None = None,
    prefix_ids: Int[Array, "B Q"] | None = None,
    *,
    attention_block: int,
) -> Float[Array, "B Q N H"]:
    """`attention` under `segment_mask`, with [B, N, attention_block, T] scores at a time, also backward.

    Args:
      keys, prefix_ids: as for `segment_mask`.
      attention_block: queries per block; the last block may be shorter.
    """
    keys = keys or (segment_ids, positions)
    dtype, length = q.dtype, q.shape[1]
    attention_block = min(attention_block, length)
    # The gradients of keys and values are summed over blocks in the dtype they enter the scan with.
    k, v = k.astype(jnp.float32), v.astype(jnp.float32)

    @jax.checkpoint
    def attend(carry: None, xs: tuple[Array, Array, Array, Array | None]) -> tuple[None, Array]:
        queries, segments, at, prefixes = xs
        mask = segment_mask(segments, at, keys, prefixes)
        return carry, attention(queries, k.astype(dtype), v.astype(dtype), mask)

    def in_blocks(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, -length % attention_block)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(x.shape[0], -1, attention_block, *x.shape[2:]).swapaxes(0, 1)

    xs = jax.tree.map(in_blocks, (q, segment_ids, positions, prefix_ids))
    _, out = jax.lax.scan(attend, None, xs)
    return out.swapaxes(0, 1).reshape(q.shape[0], -1, *q.shape[2:])[:, :length]
