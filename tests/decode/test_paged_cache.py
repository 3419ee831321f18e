"""Who begins, who moves and who comes back: the worked examples of `paged_cache`, without arrays."""

import numpy as np

from jaxtool.decode import programs
from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.paged_cache import PagedCache
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.decode.prefill import Prefilled
from jaxtool.plan.paged_rows import NoPages


def cache_of(pages: int, *, headroom: int = 0) -> PagedCache:
    config = EngineConfig(
        decode_rows=4,
        max_tokens=16,
        window_steps=4,
        pages=PagesConfig(page_tokens=4, pool_tokens=4 * pages, headroom_tokens=headroom),
    )
    return PagedCache(config, NoPages(), EngineCounts())


def prompt(tokens: int) -> Prefilled:
    """One that fills so many positions of the cache."""
    return Prefilled(((np.zeros((1, 1, tokens)),),), 0, (0,) * (tokens + 1))


def rows_of(cache: PagedCache, lengths: list[int], waiting: tuple[int, ...] = ()):
    """Rows 0, 1, .. in the order of their ages."""
    rows = programs.idle_rows(4, 1)
    rows.max_lengths[:] = 16
    for row, length in enumerate(lengths):
        rows.lengths[row], rows.is_running[row] = length, row not in waiting
    ages = np.arange(4)
    cache.place((), [(row, prompt(length)) for row, length in enumerate(lengths)], rows, ages)
    return rows, ages


def test_a_row_that_waits_for_a_tool_makes_room_and_comes_back_when_a_row_has_ended():
    cache = cache_of(6)
    rows, ages = rows_of(cache, [11, 6, 3], waiting=(1,))
    assert cache.pool.num_free == 0
    _, chosen, _ = cache.ready((), rows, ages)
    assert (chosen.tolist(), cache.moved) == ([0, 2], (1,))
    assert [len(cache.pool.pages(row)) for row in (0, 2)] == [4, 2]
    # Its tool has answered, and there is no room yet.
    rows.is_running[1] = True
    rows.lengths[[0, 2]] = 15, 4
    _, chosen, _ = cache.ready((), rows, ages)
    assert (chosen.tolist(), cache.moved) == ([0, 2], (1,))
    rows.is_running[0] = False
    cache.release((), 0)
    _, chosen, _ = cache.ready((), rows, ages)
    assert (chosen.tolist(), cache.moved, cache.host_pages) == ([1, 2], (), 0)


def test_the_youngest_moves_where_nobody_waits():
    cache = cache_of(6)
    rows, ages = rows_of(cache, [11, 6, 3])
    _, chosen, _ = cache.ready((), rows, ages)
    # Row 0 takes row 2's page; row 1 wants a third page, for 10 tokens, and finds none younger.
    assert (chosen.tolist(), cache.moved) == ([0], (2,))
    assert cache.pool.pages_of(int(rows.lengths[1])) == len(cache.pool.pages(1))


def test_rows_that_wait_make_room_for_the_one_that_can_decode():
    cache = cache_of(4)
    rows, ages = rows_of(cache, [5, 5], waiting=(0,))
    _, chosen, _ = cache.ready((), rows, ages)
    assert (chosen.tolist(), cache.moved) == ([1], (0,))
    # Now row 1 waits and row 0 goes on: they change places.
    rows.is_running[:2] = True, False
    _, chosen, _ = cache.ready((), rows, ages)
    assert (chosen.tolist(), cache.moved) == ([0], (1,))


def test_a_row_begins_where_what_all_will_soon_need_fits():
    """The docstring's example: 2 pages are held, 1 more is expected, and 5 are for the row that begins."""
    cache = cache_of(10, headroom=8)
    cache.promise(0, 6, 3.0)
    rows, _ = rows_of(cache, [6])
    assert cache.has_room(5, rows.lengths)
    assert cache.has_room(16, rows.lengths)  # 16 + 4 + 8 are 7 pages: 2 + 1 + 7 are all 10
    assert not cache.has_room(17, rows.lengths)
    cache.promise(1, 5, 0.0)
    assert not cache.has_room(5, rows.lengths)  # 2 + 1 + 5 + 5
