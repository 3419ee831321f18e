"""The KV cache: one (k, v) pair per layer, [B, K, S, H], an explicit argument and result.

With `ModelConfig.cache = "int8"` each token of each head is stored as int8 with one float32 scale.
Position s of row b holds token s of that row's trajectory. What is stored beyond a row's length is
garbage, overwritten before it can be read, so rows are freed and reused without clearing.
"""

from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.config import ModelConfig
from jaxtool.model.quantize import quantize


class LayerCache(NamedTuple):
    """Keys and values of one layer."""

    k: jax.Array  # [B, K, S, H] compute dtype or int8; K before S: attention reads runs of S
    v: jax.Array  # [B, K, S, H]
    k_scale: jax.Array | None = None  # [B, K, S] float32, with int8 only
    v_scale: jax.Array | None = None  # [B, K, S]

    def view(self, positions: int) -> "LayerCache":
        """The first `positions` positions of every row."""
        return jax.tree.map(lambda x: x[:, :, :positions], self)


KVCache = tuple[LayerCache, ...]
Cache = TypeVar("Cache", LayerCache, KVCache)


def make_cache(config: ModelConfig, rows: int, positions: int) -> KVCache:
    """Zeros for `rows` trajectories of up to `positions` tokens."""
    shape = (rows, config.num_kv_heads, positions, config.head_dim)

    dtype = jnp.int8 if config.cache == "int8" else config.dtype

    def layer() -> LayerCache:  # no array twice: a cache is donated
        scales = [jnp.zeros(shape[:3], jnp.float32) for _ in range(2) if config.cache == "int8"]
        return LayerCache(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype), *scales)

    return tuple(layer() for _ in range(config.num_layers))


def cache_bytes(config: ModelConfig, rows: int, positions: int) -> int:
    """Size of `make_cache` in bytes."""
    head_bytes = (
        config.head_dim + 4 if config.cache == "int8" else config.head_dim * config.dtype.itemsize
    )
    return 2 * config.num_layers * config.num_kv_heads * head_bytes * rows * positions


def write(
    cache: LayerCache,
    k: Float[Array, "B C K H"],
    v: Float[Array, "B C K H"],
    positions: Int[Array, "B C"],
    rows: Int[Array, " B"] | None = None,
    selects: bool = False,
) -> LayerCache:
    """Puts the keys and values of C tokens at `positions` of `rows` (None: all); those >= S are dropped.

    Args:
      selects: by `select_columns`, where all rows are written.
    """
    into_rows = jnp.arange(k.shape[0]) if rows is None else rows

    def put(into: jax.Array, x: jax.Array) -> jax.Array:
        if selects and rows is None:
            return select_columns(into, positions, x.swapaxes(1, 2))
        return put_columns(into, into_rows, positions, x.swapaxes(1, 2))

    if cache.k_scale is None or cache.v_scale is None:
        return LayerCache(put(cache.k, k), put(cache.v, v))
    k_int8, k_scale = quantize(k, (-1,))
    v_int8, v_scale = quantize(v, (-1,))
    return LayerCache(
        put(cache.k, k_int8),
        put(cache.v, v_int8),
        put(cache.k_scale, k_scale),
        put(cache.v_scale, v_scale),
    )


def write_values(
    cache: LayerCache,
    k: Float[Array, "B 1 K H"],
    v: Float[Array, "B 1 K H"],
    positions: Int[Array, "B 1"],
) -> tuple[LayerCache, tuple[Float[Array, "B K"], Float[Array, "B K"]]]:
    """`write` into all rows of an int8 cache without the scales, and the scales: a kernel writes them itself."""
    (k_int8, k_scale), (v_int8, v_scale) = quantize(k, (-1,)), quantize(v, (-1,))
    rows = jnp.arange(k.shape[0])
    values = cache._replace(
        k=put_columns(cache.k, rows, positions, k_int8.swapaxes(1, 2)),
        v=put_columns(cache.v, rows, positions, v_int8.swapaxes(1, 2)),
    )
    return values, (k_scale[:, 0], v_scale[:, 0])


def put_columns(
    into: jax.Array, rows: Int[Array, " B"], columns: Int[Array, "B C"], x: jax.Array
) -> jax.Array:
    """Writes x [B, K, C, ..] at `columns` [B, C] of `rows` of a cache array; those >= S are dropped.

    Heads are indexed and not sliced: with `[rows, :, columns]` XLA stores the cache with heads innermost
    on TPUs, and copies all of it at the start and end of every program and for every attention.
    """
    heads = jnp.arange(into.shape[1])[None, :, None]
    return into.at[rows[:, None, None], heads, columns[:, None, :]].set(x, mode="drop")


def select_columns(into: jax.Array, columns: Int[Array, "B C"], x: jax.Array) -> jax.Array:
    """`put_columns` into all rows by a choice at each position: reads and writes the whole array once.

    XLA's CPU backend has no bfloat16 scatter: it converts the whole array to float32 and back for each
    (docs/performance.md, "Writing into a bfloat16 cache").
    """
    places = jnp.arange(into.shape[2])[None]
    for c in range(columns.shape[1]):
        is_place = places == columns[:, c, None]  # [B, S]
        is_place = is_place.reshape(len(into), 1, -1, *(1,) * (into.ndim - 3))
        into = jnp.where(is_place, x[:, :, c, None], into)
    return into


def view_rows(cache: Cache, rows: Int[Array, " R"], view: int) -> Cache:
    """Positions 0..view-1 of some rows, of one layer or all; an index out of range gives the last row."""

    def take(x: Array) -> Array:
        def row(i: Array) -> Array:
            sizes = (1, x.shape[1], view, *x.shape[3:])
            return jax.lax.dynamic_slice(x, (i,) + (0,) * (x.ndim - 1), sizes)[0]

        return jax.vmap(row)(rows)

    return jax.tree.map(take, cache)


def gather_rows(cache: KVCache, rows: Int[Array, " R"]) -> KVCache:
    """Rows of the cache as a smaller cache; indices out of range give the last row."""
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0, mode="clip"), cache)


def scatter_rows(cache: KVCache, rows: Int[Array, " R"], update: KVCache) -> KVCache:
    """Writes whole rows back, or the first positions of them; indices out of range are dropped."""
    return jax.tree.map(lambda x, y: x.at[rows, :, : y.shape[2]].set(y, mode="drop"), cache, update)
