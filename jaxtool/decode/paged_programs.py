"""The device programs of a paged cache: place prompts, append, the window, and a page out and in.

They are those of `programs` with a table of pages in place of rows. The pool is a cache whose rows are
pages, [P, K, page, H] per layer. A table has the number P where a row has no page.
Not covered: which page is whose (`page_pool`), and prefill, which is the same with and without pages.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jaxtool.decode import programs
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import KVCache, LayerCache
from jaxtool.parallel.axis_rules import Sharding


class PageContent(NamedTuple):
    """What all layers hold in one page: two arrays, for a copy of each costs its own time."""

    values: Any  # [L, 2, K, page, H], keys and values
    scales: Any  # [L, 2, K, page] float32 with int8, else None


@functools.partial(jax.jit, static_argnames=("sharding",), donate_argnames=("cache",))
def place(
    cache: KVCache,
    prompts: KVCache,
    sources: Int[Array, " M"],
    chunks: Int[Array, " M"],
    pages: Int[Array, " M"],
    *,
    sharding: Sharding,
) -> KVCache:
    """Copies positions chunk · page .. of prompt `sources[i]` into page `pages[i]`; out of range: dropped.

    An example: pages of 4 and prompts of 6 columns. Chunk 1 of a prompt are its columns 4 and 5, which
    become the first two places of the page. What stands behind them stays.
    """

    def put(into: Array, x: Array) -> Array:
        page = into.shape[2]
        width = min(page, x.shape[2])
        # 1) Prompts to whole chunks: [R, K, chunks · width, ..]. A bucket mostly is.
        padding = -x.shape[2] % width
        x = jnp.pad(x, ((0, 0), (0, 0), (0, padding), *((0, 0),) * (x.ndim - 3)))

        # 2) One chunk of one prompt for each entry, and all of them into their pages at once.
        def chunk(source: Array, number: Array) -> Array:
            start = (source, 0, number * width, *(0,) * (x.ndim - 3))
            return jax.lax.dynamic_slice(x, start, (1, x.shape[1], width, *x.shape[3:]))[0]

        return into.at[pages, :, :width].set(jax.vmap(chunk)(sources, chunks), mode="drop")

    return programs.constrain(jax.tree.map(put, cache, prompts), sharding)


@functools.partial(jax.jit, static_argnames=("sharding",))
def take_page(cache: KVCache, page: Int[Array, ""], *, sharding: Sharding) -> PageContent:
    """A copy of one page."""

    def of_layers(of: list[tuple[Array, Array]]) -> Array:
        pairs = [jnp.stack([x[page] for x in pair]) for pair in of]
        stacked = jnp.stack(pairs)
        return sharding.constrain(stacked, None, None, "kv_heads", *(None,) * (stacked.ndim - 3))

    values = of_layers([(layer.k, layer.v) for layer in cache])
    scales = [
        (layer.k_scale, layer.v_scale)
        for layer in cache
        if layer.k_scale is not None and layer.v_scale is not None
    ]
    return PageContent(values, of_layers(scales) if scales else None)


@functools.partial(jax.jit, static_argnames=("sharding",), donate_argnames=("cache",))
def put_page(
    cache: KVCache, content: PageContent, page: Int[Array, ""], *, sharding: Sharding
) -> KVCache:
    """Writes a whole page."""
    layers = []
    for i, layer in enumerate(cache):
        k, v = (x.at[page].set(content.values[i, j]) for j, x in enumerate((layer.k, layer.v)))
        if layer.k_scale is None or layer.v_scale is None or content.scales is None:
            layers.append(LayerCache(k, v))
            continue
        scales = (
            x.at[page].set(content.scales[i, j])
            for j, x in enumerate((layer.k_scale, layer.v_scale))
        )
        layers.append(LayerCache(k, v, *scales))
    return programs.constrain(tuple(layers), sharding)


def page_shapes(config: ModelConfig, page_tokens: int, sharding: Sharding) -> PageContent:
    """Shapes and shardings of `PageContent` on the device."""
    shape = (config.num_layers, 2, config.num_kv_heads, page_tokens)
    is_int8 = config.cache == "int8"

    def array(dtype: object, *dims: int) -> jax.ShapeDtypeStruct:
        placed = page_sharding(sharding, len(dims))
        return jax.ShapeDtypeStruct(dims, dtype, sharding=placed)

    values = array(jnp.int8 if is_int8 else config.dtype, *shape, config.head_dim)
    return PageContent(values, array(jnp.float32, *shape) if is_int8 else None)


def page_sharding(sharding: Sharding, rank: int) -> jax.sharding.NamedSharding:
    if sharding.mesh.size == 1:
        return jax.sharding.NamedSharding(sharding.mesh, jax.sharding.PartitionSpec())
    return sharding.named(None, None, "kv_heads", *(None,) * (rank - 3))
