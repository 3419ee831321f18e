"""Training attention by the splash kernel that jax ships for TPUs, forward and backward."""

import math

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jaxtyping import Array, Float, Int

_MOST_TOKENS = 512  # per block of queries or keys; a multiple of 128


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`jaxtool.model.attention.attention` under `segment_mask`; T must be a multiple of 128.

    Tokens of a segment stand in the order of their positions, as packing puts them: causal is by
    column here. Padding (segment 0) attends to padding, which no other token sees.

    Args:
      interpret: runs the kernel's operations one by one on any platform, for tests.
    """
    b, t, n, h = q.shape
    kv = k.shape[2]
    size = math.gcd(t, _MOST_TOKENS)
    mask = masks.MultiHeadMask([masks.CausalMask((t, t))] * (n // kv))
    blocks = splash.BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    kernel = splash.make_splash_mqa_single_device(mask, block_sizes=blocks, interpret=interpret)
    queries = (q * h**-0.5).astype(q.dtype).reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4)
    per_head = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    ids = splash.SegmentIds(q=segment_ids, kv=segment_ids)
    out = jax.vmap(per_head)(queries, k.swapaxes(1, 2), v.swapaxes(1, 2), ids)
    return jnp.asarray(out).transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)
