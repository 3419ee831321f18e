"""Grouped-query attention: over whole packed rows, and over a cache with a position per token.

Both take scores and softmax in float32 and keep the [.., K, group, ..] grouping of the heads.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.model.kv_cache import LayerCache

# Finite, so that a row with no key at all gives a uniform softmax and not NaN.
MASKED_SCORE = -1e30


# Segment ids and positions of tokens, [B, T] each.
Places = tuple[Int[Array, "B T"], Int[Array, "B T"]]


def segment_mask(
    segment_ids: Int[Array, "B Q"],
    positions: Int[Array, "B Q"],
    keys: Places | None = None,
    prefix_ids: Int[Array, "B Q"] | None = None,
) -> Bool[Array, "B Q T"]:
    """mask[b, t, s]: token t may look at token s: same segment or its prefix, not later, not padding.

    Args:
      keys: of the tokens that are looked at, where the others are a part of them; None: the same.
      prefix_ids: the segment that a token's own continues, 0 for none; None: of no token.

    An example: a prompt "a b" once, and two answers to it. `x` may look at `y` where there is a 1.

      segment  prefix  position      a b c d e
         1       0        0       a  1
         1       0        1       b  1 1
         2       1        2       c  1 1 1
         2       1        3       d  1 1 1 1
         3       1        2       e  1 1     1
    """
    key_segments, key_positions = keys or (segment_ids, positions)
    same = segment_ids[:, :, None] == key_segments[:, None, :]
    if prefix_ids is not None:
        same |= prefix_ids[:, :, None] == key_segments[:, None, :]
    causal = positions[:, :, None] >= key_positions[:, None, :]
    real = (key_segments != 0)[:, None, :]
    return same & causal & real


def attention(
    q: Float[Array, "B Q N H"],
    k: Float[Array, "B T K H"],
    v: Float[Array, "B T K H"],
    mask: Bool[Array, "B Q T"],
) -> Float[Array, "B Q N H"]:
    """softmax(q·k / sqrt(H)) v under `mask`.

    The division by the softmax's sum comes last: it then goes over H numbers and not over T. Queries of
    a group share one matrix product, which is what makes this quick on a CPU.
    """
    b, t, n, h = q.shape
    kv, group = k.shape[2], n // k.shape[2]
    grouped = q.reshape(b, t, kv, group, h).transpose(0, 2, 3, 1, 4).reshape(b, kv, group * t, h)
    keys, values = k.transpose(0, 2, 1, 3), v.transpose(0, 2, 1, 3)
    scores = jnp.einsum("bkqh,bksh->bkqs", grouped, keys, preferred_element_type=jnp.float32)
    scores = scores.reshape(b, kv, group, t, -1) * h**-0.5
    scores = jnp.where(mask[:, None, None, :, :], scores, MASKED_SCORE)
    top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
    weights = jnp.exp(scores - top)
    total = jnp.sum(weights, axis=-1, keepdims=True)
    weights = weights.astype(v.dtype).reshape(b, kv, group * t, -1)
    out = jnp.einsum("bkqs,bksh->bkqh", weights, values, preferred_element_type=jnp.float32)
    out = out.reshape(b, kv, group, t, h) / total
    return out.transpose(0, 3, 1, 2, 4).reshape(b, t, n, h).astype(q.dtype)


def cached_attention(
    q: Float[Array, "B C N H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    *,
    keys_first: bool = False,
) -> Float[Array, "B C N H"]:
    """Queries of C new tokens per row over a cache that already holds their keys and values.

    A query sees cache positions 0..its own position; whatever is stored beyond is never read. The scales of an
    int8 cache multiply scores and weights, so that no float copy of the cache is made.

    Args:
      keys_first: keys times queries in place of queries times keys, and the division by the softmax's sum
        last. The same up to rounding; quicker on a CPU where a few queries see many keys.
    """
    b, c, n, h = q.shape
    kv, s = cache.k.shape[1], cache.k.shape[2]
    grouped = q.reshape(b, c, kv, n // kv, h).transpose(0, 2, 3, 1, 4).reshape(b, kv, -1, h)
    k, v = cache.k.astype(q.dtype), cache.v.astype(q.dtype)
    if keys_first:
        scores = jnp.einsum("bksh,bkqh->bksq", k, grouped, preferred_element_type=jnp.float32)
        # Without the barrier XLA makes one product of the two steps, which is the other order again.
        scores = jax.lax.optimization_barrier(scores).swapaxes(2, 3)
    else:
        scores = jnp.einsum("bkqh,bksh->bkqs", grouped, k, preferred_element_type=jnp.float32)
    if cache.k_scale is not None:
        scores = scores * cache.k_scale[:, :, None, :]
    mask = jnp.arange(s)[None, None, :] <= positions[:, :, None]  # [B, C, S]
    mask = jnp.broadcast_to(mask[:, None, :, :], (b, n // kv, c, s)).reshape(b, 1, -1, s)
    scores = jnp.where(mask, scores * h**-0.5, MASKED_SCORE)
    if keys_first:
        probs = jnp.exp(scores - jnp.max(scores, axis=-1, keepdims=True))
        total = jnp.sum(probs, axis=-1, keepdims=True)
    else:
        probs, total = jax.nn.softmax(scores, axis=-1), 1.0
    if cache.v_scale is not None:
        probs = probs * cache.v_scale[:, :, None, :]
    probs = probs.astype(q.dtype)
    out = jnp.einsum("bkqs,bksh->bkqh", probs, v, preferred_element_type=jnp.float32) / total
    out = out.reshape(b, kv, n // kv, c, h).transpose(0, 3, 1, 2, 4)
    return out.reshape(b, c, n, h).astype(q.dtype)
