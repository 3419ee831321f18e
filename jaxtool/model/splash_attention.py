"""Training attention by the splash kernel that jax ships for TPUs, forward and backward."""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_kernel as splash,
)
from jax.experimental.pallas.ops.tpu.splash_attention import (
    splash_attention_mask as masks,
)
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtool.model.pallas_attention import LANES
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.zigzag import from_zigzag, to_zigzag, zigzag_columns

_MOST_TOKENS = 512  # per block of queries or keys; a multiple of 128


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    sharding: Sharding | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`jaxtool.model.attention.attention` under `segment_mask`.

    Tokens of a segment stand in the order of their positions, as packing puts them: causal is by
    column here. Padding (segment 0) attends to padding, which no other token sees.

    Args:
      sharding: None for a single device; T must be a multiple of 128 times the parts that its rules
        split queries into, and each part sees all keys. Of 256 times: the parts are balanced (zigzag.py).
      interpret: runs the kernel's operations one by one on any platform, for tests.
    """
    parts = 1 if sharding is None else sharding.parts("queries")
    chunks = 2 * parts if parts > 1 and q.shape[1] % (2 * parts * LANES) == 0 else parts
    kernel = _kernel(q.shape[1], q.shape[2] // k.shape[2], parts, chunks, interpret)
    if sharding is None or sharding.mesh.size == 1:
        return _attend(kernel, q, k, v, segment_ids, segment_ids)
    spec, mesh_axes = sharding.rules.spec, sharding.rules.queries
    heads, kv_heads = sharding.mapped_heads
    queries, keys = spec("batch", "queries", heads, None), spec("batch", None, kv_heads, None)
    # The kernel's table of blocks: which of them each part of the queries must look at.
    blocks = NamedSharding(sharding.mesh, PartitionSpec(None, mesh_axes or None))

    def attend(kernel: Any, q: Array, k: Array, v: Array, own: Array, all_ids: Array) -> Array:
        if chunks == parts:
            return _attend(kernel, q, k, v, own, all_ids)
        q, own = to_zigzag((q, own), mesh_axes, parts)
        return from_zigzag(_attend(kernel, q, k, v, own, all_ids), mesh_axes, parts)

    return jax.shard_map(
        attend,
        mesh=sharding.mesh,
        in_specs=(
            kernel.manual_sharding_spec(blocks),
            queries,
            keys,
            keys,
            spec("batch", "queries"),
            spec("batch", None),
        ),
        out_specs=queries,
        check_vma=False,
    )(kernel, q, k, v, segment_ids, segment_ids)


def _kernel(length: int, group: int, parts: int, chunks: int, interpret: bool) -> Any:
    """Of `group` query heads that share a key head.

    Args:
      chunks: of the row, which no block crosses; where there are two a part, queries are in zigzag order.
    """
    size = math.gcd(length // chunks, _MOST_TOKENS)
    mask = masks.CausalMask((length, length))
    if chunks > parts:
        mask.q_sequence = zigzag_columns(length, parts)
    blocks = splash.BlockSizes(
        block_q=size,
        block_kv=size,
        block_q_dkv=size,
        block_kv_dkv=size,
        block_kv_dkv_compute=size,
        block_q_dq=size,
        block_kv_dq=size,
    )
    return splash.make_splash_mqa(
        masks.MultiHeadMask([mask] * group),
        block_sizes=blocks,
        head_shards=1,
        q_seq_shards=parts,
        interpret=interpret,
    )


def _attend(
    kernel: Any, q: Array, k: Array, v: Array, segments: Array, key_segments: Array
) -> Array:
    b, t, n, h = q.shape
    kv = k.shape[2]
    queries = (q * h**-0.5).astype(q.dtype).reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4)
    per_head = jax.vmap(kernel, in_axes=(0, 0, 0, None))
    ids = splash.SegmentIds(q=segments, kv=key_segments)
    out = jax.vmap(per_head)(queries, k.swapaxes(1, 2), v.swapaxes(1, 2), ids)
    return jnp.asarray(out).transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)
