"""Training attention by the splash kernel that jax ships for TPUs, forward and backward.

Blocks of queries and keys that have no segment in common are skipped: packing decides which, so the tables
of blocks are made from the rows' segments while the program runs.
"""

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

from jaxtool.model.cache_kernel import LANES
from jaxtool.model.remat import ATTENTION, keep_attention
from jaxtool.model.splash_blocks import block_sizes, busy_blocks
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.zigzag import from_zigzag, to_zigzag, zigzag_columns

# Log of a softmax's sum, of a query without any key in a call: what it adds to another's is nothing.
_NO_KEY = -1e30


def splash_attention(
    q: Float[Array, "B T N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    segment_ids: Int[Array, "B T"],
    *,
    prefix_ids: Int[Array, "B T"] | None = None,
    sharding: Sharding | None = None,
    interpret: bool = False,
) -> Float[Array, "B T N H"]:
    """`jaxtool.model.attention.attention` under `segment_mask`.

    Tokens of a segment stand in the order of their positions, as packing puts them: causal is by
    column here. Padding (segment 0) attends to padding, which no other token sees.

    Args:
      prefix_ids: as for `segment_mask`. The kernel knows equal segments alone, so it is called twice: for the
        keys of a query's own segment and for those of its prefix. See `_merged`.
      sharding: None for a single device; T must be a multiple of 128 times the parts that its rules
        split queries into, and each part sees all keys. Of 256 times: the parts are balanced (zigzag.py).
      interpret: runs the kernel's operations one by one on any platform, for tests.
    """
    parts = 1 if sharding is None else sharding.parts("queries")
    chunks = 2 * parts if parts > 1 and q.shape[1] % (2 * parts * LANES) == 0 else parts
    kernel = _kernel(q.shape[1], q.shape[2] // k.shape[2], parts, chunks, interpret)
    own = segment_ids, prefix_ids
    if sharding is None or sharding.mesh.size == 1:
        return _attend(kernel, q, k, v, own, segment_ids)
    spec, mesh_axes = sharding.rules.spec, sharding.rules.queries
    heads, kv_heads = sharding.mapped_heads
    queries, keys = spec("batch", "queries", heads, None), spec("batch", None, kv_heads, None)
    # The kernel's table of blocks: which of them each part of the queries must look at.
    blocks = NamedSharding(sharding.mesh, PartitionSpec(None, mesh_axes or None))

    def attend(kernel: Any, q: Array, k: Array, v: Array, own: _Ids, all_ids: Array) -> Array:
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
    )(kernel, q, k, v, own, segment_ids)


# Segments of queries, and the segments that these continue.
_Ids = tuple[Array, Array | None]


def _kernel(length: int, group: int, parts: int, chunks: int, interpret: bool) -> Any:
    """Of `group` query heads that share a key head.

    Args:
      chunks: of the row, which no block crosses; where there are two a part, queries are in zigzag order.
    """
    mask = masks.CausalMask((length, length))
    if chunks > parts:
        mask.q_sequence = zigzag_columns(length, parts)
    return splash.make_splash_mqa(
        masks.MultiHeadMask([mask] * group),
        block_sizes=block_sizes(length // chunks),
        head_shards=1,
        q_seq_shards=parts,
        residual_checkpoint_name=ATTENTION,  # output and softmax sums: what the backward kernels read
        interpret=interpret,
    )


def _attend(kernel: Any, q: Array, k: Array, v: Array, own: _Ids, key_segments: Array) -> Array:
    b, t, n, h = q.shape
    kv = k.shape[2]
    queries = (q * h**-0.5).astype(q.dtype).reshape(b, t, kv, n // kv, h).transpose(0, 2, 3, 1, 4)

    # Row by row, because each has a table of blocks of its own; key heads share it.
    def row(arrays: tuple[Array, Array, Array, _Ids, Array]) -> Array:
        q, k, v, (segments, prefixes), key_segments = arrays
        ids = splash.SegmentIds(q=segments, kv=key_segments)
        same = busy_blocks(kernel, segments, key_segments)
        if prefixes is None:
            return jax.vmap(same, in_axes=(0, 0, 0, None))(q, k, v, ids)
        # A prefix stands before what continues it: causal by column leaves all of it to be seen.
        before = splash.SegmentIds(q=jnp.where(prefixes == 0, -1, prefixes), kv=key_segments)
        kernels = same, busy_blocks(kernel, before.q, key_segments)
        return jax.vmap(_merged, in_axes=(None, 0, 0, 0, None))(kernels, q, k, v, (ids, before))

    arrays = queries, k.swapaxes(1, 2), v.swapaxes(1, 2), own, key_segments
    out = jax.lax.map(row, arrays)
    return out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h)


@jax.custom_vjp
def _merged(kernels: tuple[Any, Any], q: Array, k: Array, v: Array, ids: tuple[Any, Any]) -> Array:
    """Attention [G, T, H] over keys that two calls of the kernel share, no key in both.

    With oₖ and lₖ the output of call k and the logarithm of its softmax's sum, l = log(e^l₁ + e^l₂) and
    o = e^(l₁ - l) o₁ + e^(l₂ - l) o₂. The backward kernels take o and l as they are for all keys: the
    probability of a key is e^(s - l), whoever computes it, so each call gives the gradients that its keys
    have in the whole (FlashAttention-2, 2307.08691, section 3.1). Those of the queries are added.
    """
    return _merged_forward(kernels, q, k, v, ids)[0]


def _merged_forward(kernels: Any, q: Array, k: Array, v: Array, ids: Any) -> tuple[Array, Any]:
    outs, logs = [], []
    for kernel, own in zip(kernels, ids, strict=True):
        options = kernel.kwargs | {"save_residuals": True}
        infos = kernel.fwd_mask_info, kernel.dq_mask_info, kernel.dkv_mask_info
        out, (log,) = splash.SplashAttentionKernel(*infos, **options)(q, k, v, own)
        has_key = log > _NO_KEY
        # A query whose blocks are all skipped has divided by a sum of 0.
        outs.append(jnp.where(has_key[..., None], out.astype(jnp.float32), 0.0))
        logs.append(jnp.where(has_key, log, _NO_KEY))
    log = jnp.logaddexp(*logs)
    shares = [jnp.exp(part - log)[..., None] for part in logs]
    out = keep_attention((shares[0] * outs[0] + shares[1] * outs[1]).astype(q.dtype))
    log = keep_attention(log)
    return out, (kernels, q, k, v, ids, out, log)


def _merged_backward(kept: Any, cotangent: Array) -> tuple[None, Array, Array, Array, None]:
    kernels, q, k, v, ids, out, log = kept
    found = []
    for kernel, own in zip(kernels, ids, strict=True):
        residuals = q, k, v, own, None, out, log, kernel.dq_mask_info, kernel.dkv_mask_info
        options = kernel.kwargs
        # The kernel's own backward pass, which it keeps to itself: it is given residuals of both calls.
        given = splash._splash_attention_bwd(
            options["save_residuals"],
            options["mask_value"],
            options["is_mqa"],
            options["block_sizes"],
            options["residual_checkpoint_name"],
            options["mask_function"],
            options["attn_logits_soft_cap"],
            options["interpret"],
            residuals,
            cotangent,
        )
        found.append(given[3:6])
    dq, dk, dv = (
        x.astype(jnp.float32) + y.astype(jnp.float32) for x, y in zip(*found, strict=True)
    )
    return None, dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), None


_merged.defvjp(_merged_forward, _merged_backward)
