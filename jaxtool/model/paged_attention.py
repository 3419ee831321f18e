"""Attention over a paged cache: a pool of pages, and a table that says which pages a row has.

The pool of a layer is a `LayerCache` whose rows are pages: [P, K, page, H]. Position s of row b is place
s % page of page table[b, s // page]. An entry of P is no page: what is written there is dropped, what is
read there is never seen. Positions beyond the table are those of rows that do nothing.
Not covered: which row has which page (`jaxtool.decode.page_pool`).

An example with pages of 4, a pool of P = 3 pages, a row of 6 tokens and one of 2 that does nothing:

  table [[2 0 3] [1 3 3]]   positions [[5] [12]]
  written: the token of row 0 at place 1 of page 0; nothing for row 1, since 12 is beyond 3 pages
  read by row 0: page 2, then places 0 and 1 of page 0
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.attention import cached_attention
from jaxtool.model.attention_backends import attend_to_cache, cached_backend
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import LayerCache
from jaxtool.model.pallas_attention import NewScales, flash_paged_attention
from jaxtool.model.quantize import quantize
from jaxtool.parallel.axis_rules import Sharding


def write_and_attend_to_pages(
    q: Float[Array, "B C N H"],
    k: Float[Array, "B C K H"],
    v: Float[Array, "B C K H"],
    cache: LayerCache,
    positions: Int[Array, "B C"],
    table: Int[Array, "B n"],
    config: ModelConfig,
    sharding: Sharding,
) -> tuple[Float[Array, "B C N H"], LayerCache]:
    """Writes C tokens of each row into its pages and attends to them and to all before them.

    By the TPU kernel where it serves, else by gathering the pages and what attends to a contiguous cache. What rows get whose
    positions are beyond the table is arbitrary, but finite.
    """
    backend = cached_backend(config, cache.k.shape[2], sharding)
    if backend != "pallas_tpu":
        updated, _ = write_pages(cache, k, v, positions, table)
        rows = gather_pages(updated, table)
        if backend == "xla":
            return cached_attention(q, rows, positions), updated
        return attend_to_cache(q, rows, positions, config, sharding), updated
    # In a step the kernel writes the scales of int8 pages: a scatter would change the layout of all of them.
    updated, new = write_pages(cache, k, v, positions, table, with_scales=q.shape[1] > 1)
    if sharding.mesh.size == 1:
        return flash_paged_attention(q, updated, positions, table, new)
    # A page is of any row, so rows are not sharded (`check_one_part`): every device has the whole table.
    rules, (heads, kv_heads) = sharding.rules, sharding.mapped_heads
    queries = rules.spec(None, None, heads, None)
    pool = jax.tree.map(lambda x: rules.spec(None, kv_heads, *(None,) * (x.ndim - 2)), updated)
    whole, of_token = rules.spec(None, None), rules.spec(None, kv_heads)
    return jax.shard_map(
        flash_paged_attention,
        mesh=sharding.mesh,
        in_specs=(queries, pool, whole, whole, None if new is None else (of_token, of_token)),
        out_specs=(queries, pool),
        check_vma=False,
    )(q, updated, positions, table, new)


def write_pages(
    cache: LayerCache,
    k: Float[Array, "B C K H"],
    v: Float[Array, "B C K H"],
    positions: Int[Array, "B C"],
    table: Int[Array, "B n"],
    *,
    with_scales: bool = True,
) -> tuple[LayerCache, NewScales | None]:
    """Puts the keys and values of C tokens at `positions`; those without a page are dropped.

    Args:
      with_scales: of an int8 cache; False, with C = 1: they are returned and not written.
    """
    pages, places = places_of(positions, table, cache)

    def put(into: Array, x: Array) -> Array:
        # Heads are indexed and not sliced, see `put_columns`.
        heads = jnp.arange(into.shape[1])[None, :, None]
        at = into.at[pages[:, None, :], heads, places[:, None, :]]
        return at.set(x.swapaxes(1, 2), mode="drop")

    if cache.k_scale is None or cache.v_scale is None:
        return LayerCache(put(cache.k, k), put(cache.v, v)), None
    (k_int8, k_scale), (v_int8, v_scale) = quantize(k, (-1,)), quantize(v, (-1,))
    into_k, into_v = cache.k_scale, cache.v_scale
    cache = cache._replace(k=put(cache.k, k_int8), v=put(cache.v, v_int8))
    if not with_scales:
        return cache, (k_scale[:, 0], v_scale[:, 0])
    return cache._replace(k_scale=put(into_k, k_scale), v_scale=put(into_v, v_scale)), None


def places_of(
    positions: Int[Array, "B C"], table: Int[Array, "B n"], cache: LayerCache
) -> tuple[Int[Array, "B C"], Int[Array, "B C"]]:
    """Page and place in it of each position; page P for those beyond the table."""
    count, page = cache.k.shape[0], cache.k.shape[2]
    column = positions // page
    pages = jnp.take_along_axis(table, jnp.minimum(column, table.shape[1] - 1), axis=1)
    return jnp.where(column < table.shape[1], pages, count), positions % page


def gather_pages(cache: LayerCache, table: Int[Array, "B n"]) -> LayerCache:
    """The pages of each row side by side, as rows of n · page positions; an entry of P gives the last page."""

    def rows(x: Array) -> Array:
        b, n = table.shape
        taken = jnp.take(x, table, axis=0, mode="clip").swapaxes(1, 2)  # [B, K, n, page, ..]
        return taken.reshape(b, x.shape[1], n * x.shape[2], *x.shape[3:])

    return jax.tree.map(rows, cache)
