"""Training attention by XLA of rows that are sharded over their tokens (MeshConfig.context).

Each device has a part of the queries and sees all keys and values, which XLA gathers in the compute dtype;
their gradients are summed over the parts. Where 2P chunks divide a row the parts are balanced (zigzag.py):
the earlier chunk leaves out the second half of the keys, so 3/4 of the scores are computed. Not covered:
leaving out all later keys, 2P + 1 of 4P, which the kernel for TPUs does.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtool.model.attention import Places, attention, segment_mask
from jaxtool.model.blockwise_attention import blockwise_attention
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.zigzag import from_zigzag, to_zigzag

# Segment ids, positions and prefixes of queries, [B, Q] each.
_Queries = tuple[Array, Array, Array | None]


def split_attention(
    attention_block: int | None,
    places: Places,
    sharding: Sharding,
    prefix_ids: Array | None = None,
) -> Callable[[Array, Array, Array], Array]:
    """q [B, T, N, H], k and v [B, T, K, H] -> [B, T, N, H]; the tokens of a segment stand in order.

    Args:
      attention_block: as in `ModelConfig`.
      places: segment ids and positions of the rows.
      prefix_ids: [B, T], as for `segment_mask`.
    """
    axes, parts = sharding.rules.queries, sharding.parts("queries")
    length = places[0].shape[1]
    is_balanced = length % (2 * parts) == 0

    def attend(q: Array, k: Array, v: Array, queries: _Queries, keys: Places) -> Array:
        if not is_balanced:
            return _look(q, k, v, queries, keys, attention_block)
        q, queries = to_zigzag((q, queries), axes, parts)
        # The gradients of keys and values are summed over the chunks in the dtype that they are sliced in.
        dtype, own = q.dtype, q.shape[1] // 2
        k, v = k.astype(jnp.float32), v.astype(jnp.float32)
        outs: list[Array] = []
        for begin, seen in ((0, length // 2), (own, length)):
            part = slice(begin, begin + own)
            looked_at = k[:, :seen].astype(dtype), v[:, :seen].astype(dtype)
            at = jax.tree.map(lambda x: x[:, part], queries)  # noqa: B023
            out = _look(
                q[:, part], *looked_at, at, (keys[0][:, :seen], keys[1][:, :seen]), attention_block
            )
            outs.append(out)
        return from_zigzag(jnp.concatenate(outs, axis=1), axes, parts)

    spec, (heads, kv_heads) = sharding.rules.spec, sharding.mapped_heads
    of_queries = spec("batch", "queries", heads, None)
    of_keys = spec("batch", None, kv_heads, None)
    own_places, all_places = spec("batch", "queries"), spec("batch", None)
    mapped = jax.shard_map(
        attend,
        mesh=sharding.mesh,
        in_specs=(of_queries, of_keys, of_keys, own_places, all_places),
        out_specs=of_queries,
        check_vma=False,
    )
    return lambda q, k, v: mapped(q, k, v, (*places, prefix_ids), places)


def _look(
    q: Array, k: Array, v: Array, queries: _Queries, keys: Places, attention_block: int | None
) -> Array:
    segments, at, prefixes = queries
    if attention_block is None:
        return attention(q, k, v, segment_mask(segments, at, keys, prefixes))
    return blockwise_attention(
        *(q, k, v, segments, at, keys, prefixes), attention_block=attention_block
    )
