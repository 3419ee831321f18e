"""The KV cache: one (k, v) pair per layer, [B, K, S, H], an explicit argument and result.

Slot s of row b holds token s of that row's trajectory. What lies beyond a row's length is garbage
that is overwritten before it can be read, so rows are freed and reused without clearing.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.config import ModelConfig


class LayerCache(NamedTuple):
    """Keys and values of one layer."""

    k: jax.Array  # [B, K, S, H] compute dtype; K before S: attention reads rows of S in one run
    v: jax.Array  # [B, K, S, H]


KVCache = tuple[LayerCache, ...]


def make_cache(config: ModelConfig, rows: int, slots: int) -> KVCache:
    """Zeros for `rows` trajectories of up to `slots` tokens."""
    shape = (rows, config.num_kv_heads, slots, config.head_dim)
    return tuple(
        LayerCache(jnp.zeros(shape, config.dtype), jnp.zeros(shape, config.dtype))
        for _ in range(config.num_layers)
    )


def cache_bytes(config: ModelConfig, rows: int, slots: int) -> int:
    """Size of `make_cache` in bytes."""
    per_token = 2 * config.num_layers * config.num_kv_heads * config.head_dim
    return per_token * rows * slots * config.dtype.itemsize


def write(
    cache: LayerCache,
    k: Float[Array, "B C K H"],
    v: Float[Array, "B C K H"],
    positions: Int[Array, "B C"],
) -> LayerCache:
    """Puts the keys and values of C tokens per row at `positions`; those >= S are dropped."""
    rows = jnp.arange(positions.shape[0])[:, None]
    return LayerCache(
        cache.k.at[rows, :, positions].set(k, mode="drop"),
        cache.v.at[rows, :, positions].set(v, mode="drop"),
    )


def gather_rows(cache: KVCache, rows: Int[Array, " R"]) -> KVCache:
    """Rows of the cache as a smaller cache; indices out of range give the last row."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0, mode="clip"), cache)


def scatter_rows(cache: KVCache, rows: Int[Array, " R"], update: KVCache) -> KVCache:
    """Writes whole rows back, or the first slots of them; indices out of range are dropped."""
    return jax.tree.map(lambda x, y: x.at[rows, :, : y.shape[2]].set(y, mode="drop"), cache, update)
