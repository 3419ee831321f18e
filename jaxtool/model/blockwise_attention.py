"""Training attention in blocks of queries: the scores [T, T] of a long row never exist.

Equal to `attention`, because a query's softmax still runs over all of its keys at once; only the
queries are cut. The backward pass computes each block's scores again. Not covered: leaving out keys
that no query of a block may see, which is what the accelerators' kernels are for.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import Places, attention, segment_mask


def blockwise_attention(
    q: Float[Array, "B Q N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B Q"],
    positions: Int[Array, "B Q"],
    keys: Places | None = None,
    *,
    block: int,
) -> Float[Array, "B Q N H"]:
    """`attention` under `segment_mask`, with [B, N, block, T] scores at a time.

    Args:
      keys: as for `segment_mask`.
      block: queries per block; the last block may be shorter.
    """
    keys = keys or (segment_ids, positions)
    dtype, length = q.dtype, q.shape[1]
    block = min(block, length)
    # The gradients of keys and values are summed over blocks in the dtype they enter the scan with.
    k, v = k.astype(jnp.float32), v.astype(jnp.float32)

    @jax.checkpoint
    def attend(carry: None, xs: tuple[Array, Array, Array]) -> tuple[None, Array]:
        queries, segments, at = xs
        mask = segment_mask(segments, at, keys)
        return carry, attention(queries, k.astype(dtype), v.astype(dtype), mask)

    def cut(x: Array) -> Array:
        x = jnp.pad(x, ((0, 0), (0, -length % block)) + ((0, 0),) * (x.ndim - 2))
        return x.reshape(x.shape[0], -1, block, *x.shape[2:]).swapaxes(0, 1)

    _, out = jax.lax.scan(attend, None, (cut(q), cut(segment_ids), cut(positions)))
    return out.swapaxes(0, 1).reshape(q.shape[0], -1, *q.shape[2:])[:, :length]
