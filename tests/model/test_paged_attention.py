"""Attention over pages equals attention over rows that hold the same tokens; the kernel equals XLA."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxtool.model.attention import cached_attention
from jaxtool.model.kv_cache import LayerCache, write
from jaxtool.model.paged_attention import gather_pages, places_of, write_pages
from jaxtool.model.pallas_attention import (
    flash_paged_attention,
    part_of_page,
)
from jaxtool.model.quantize import quantize

ROWS, COLUMNS, PAGE = 4, 3, 128


def normal(seed: int, *shape: int, dtype: str = "float32") -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def cache_of(rows: int, positions: int, *, dtype: str, int8: bool) -> LayerCache:
    k, v = (normal(seed, rows, 1, positions, 128, dtype=dtype) for seed in (1, 2))
    if not int8:
        return LayerCache(k, v)
    (k, k_scale), (v, v_scale) = quantize(k, (-1,)), quantize(v, (-1,))
    return LayerCache(k, v, k_scale, v_scale)


def in_pages(cache: LayerCache, table: np.ndarray, pages: int, size: int = PAGE) -> LayerCache:
    """A pool whose pages hold the rows of `cache` where `table` says; the others hold large garbage."""

    def pool(x: jax.Array) -> jax.Array:
        out = np.full((pages, x.shape[1], size, *x.shape[3:]), 77, np.asarray(x).dtype)
        for row, columns in enumerate(table):
            for column, page in enumerate(columns):
                if page < pages:
                    out[page] = np.asarray(x)[row, :, column * size : (column + 1) * size]
        return jnp.asarray(out)

    return jax.tree.map(pool, cache)


def shuffled_table(lengths: np.ndarray, pages: int, size: int = PAGE) -> np.ndarray:
    """Pages in a random order for rows of these lengths, and no page beyond them."""
    free = list(np.random.default_rng(0).permutation(pages))
    table = np.full((len(lengths), COLUMNS), pages, np.int32)
    for row, length in enumerate(lengths):
        for column in range(min(COLUMNS, -(-int(length) // size))):
            table[row, column] = free.pop()
    return table


CASES = [
    (1, "float32", False, 2e-6),
    (260, "float32", False, 2e-6),  # two blocks of queries
    (4, "bfloat16", True, 2e-2),
]


@pytest.mark.parametrize(("columns", "dtype", "int8", "tolerance"), CASES)
def test_the_paged_kernel_equals_xla_over_rows(columns, dtype, int8, tolerance):
    """Rows that end at and beside the edges of pages, and one that does nothing."""
    starts = np.minimum([0, PAGE - 1, PAGE, COLUMNS * PAGE], COLUMNS * PAGE - columns)
    at = jnp.asarray(starts[:, None] + np.arange(columns), jnp.int32)
    q = normal(0, ROWS, columns, 2, 128, dtype=dtype)
    cache = cache_of(ROWS, COLUMNS * PAGE, dtype=dtype, int8=int8)
    table = shuffled_table(starts + columns, 12)
    pool, table = in_pages(cache, table, 12), jnp.asarray(table)
    wanted = np.asarray(cached_attention(q, cache, at), np.float32)
    got, _ = flash_paged_attention(q, pool, at, table, interpret=True)
    assert got.dtype == q.dtype
    np.testing.assert_allclose(np.asarray(got, np.float32), wanted, atol=tolerance)
    gathered = cached_attention(q, gather_pages(pool, table), at)
    np.testing.assert_array_equal(np.asarray(gathered, np.float32), wanted)
    if columns > 1:
        return
    # Without a position in the table: no time, and zeros. The others do not change by a bit.
    idle = at.at[1].set(COLUMNS * PAGE)
    out, _ = flash_paged_attention(q, pool, idle, table, interpret=True)
    assert not np.any(np.asarray(out, np.float32)[1])
    others = [0, 2, 3]
    np.testing.assert_array_equal(np.asarray(out)[others], np.asarray(got)[others])


@pytest.mark.parametrize("int8", [False, True])
def test_a_page_of_several_pieces_equals_rows(int8):
    """Of int8 a row's last page is copied in pieces of 512 up to its token; what was there before is not seen."""
    page = 2048
    ends = [0, 511, 512, 1023, 1600, 2047, 2048, 3 * 2048 - 1]
    at = jnp.asarray(ends, jnp.int32)[:, None]
    q = normal(0, len(ends), 1, 2, 128, dtype="bfloat16")
    cache = cache_of(len(ends), COLUMNS * page, dtype="bfloat16", int8=int8)
    table = shuffled_table(np.asarray(ends) + 1, 16, page)
    pool, table = in_pages(cache, table, 16, page), jnp.asarray(table)
    got, _ = flash_paged_attention(q, pool, at, table, interpret=True)
    wanted = np.asarray(cached_attention(q, cache, at), np.float32)
    np.testing.assert_allclose(np.asarray(got, np.float32), wanted, atol=2e-2)


@pytest.mark.parametrize("int8", [False, True])
def test_tokens_are_written_into_pages_as_into_rows(int8):
    """The kernel writes the scales of a step's tokens as a scatter does; a row without a page writes nothing."""
    at = jnp.asarray([[0], [PAGE - 1], [PAGE], [COLUMNS * PAGE]], jnp.int32)
    cache = cache_of(ROWS, COLUMNS * PAGE, dtype="float32", int8=int8)
    table = shuffled_table(np.array([1, PAGE, PAGE + 1, 2 * PAGE]), 12)
    pool, table = in_pages(cache, table, 12), jnp.asarray(table)
    k, v, q = normal(5, ROWS, 1, 1, 128), normal(6, ROWS, 1, 1, 128), normal(0, ROWS, 1, 2, 128)
    wanted = write(cache, k, v, at)
    got, none = write_pages(pool, k, v, at, table)
    assert none is None
    for row, length in enumerate([1, PAGE, PAGE + 1, 2 * PAGE]):
        for x, y in zip(gather_pages(got, table), wanted, strict=True):
            if x is not None:
                np.testing.assert_array_equal(x[row, :, :length], y[row, :, :length])
    changed = [
        int((np.asarray(x) != np.asarray(y)).any(axis=tuple(range(1, x.ndim))).sum())
        for x, y in zip(got, pool, strict=True)
        if x is not None
    ]
    assert changed == [3] * len(changed)  # pages: one for each row but the last
    if int8:
        values, new = write_pages(pool, k, v, at, table, with_scales=False)
        out, written = flash_paged_attention(q, values, at, table, new, interpret=True)
        for x, y in zip(written, got, strict=True):
            np.testing.assert_array_equal(x, y)
        plain, _ = flash_paged_attention(q, got, at, table, interpret=True)
        np.testing.assert_array_equal(out, plain)


def test_places_by_hand():
    """The docstring's example: the token of row 0 at place 1 of page 0, and none of row 1."""
    pool = cache_of(3, 4, dtype="float32", int8=False)
    table, at = jnp.asarray([[2, 0, 3], [1, 3, 3]]), jnp.asarray([[5], [12]])
    pages, places = places_of(at, table, pool)
    assert (pages[0, 0], places[0, 0], pages[1, 0]) == (0, 1, 3)


def test_blocks_divide_pages():
    assert part_of_page(2048, 512) == 512
    assert part_of_page(2176, 1152) == 128
    assert part_of_page(256, 256) == 256
