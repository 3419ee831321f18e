"""A plan's pool: rows and windows of one host by the engine's own bookkeeping, and what follows for a step."""

import dataclasses
import itertools
import math

import pytest
from helpers.small_runs import rl_config

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.plan import program as names
from jaxtool.plan.kernels import cache_steps
from jaxtool.plan.lengths import draw_lengths
from jaxtool.plan.paged_rows import PagedRows, paged_rows
from jaxtool.plan.step import default_assumptions, rows_in_pages, runs_per_step


def rows(pool_tokens: int, *, decode_rows: int = 8, spread: float = 0.0, **fields) -> PagedRows:
    pages = PagesConfig(page_tokens=16, pool_tokens=pool_tokens, headroom_tokens=16)
    engine = EngineConfig(decode_rows=decode_rows, max_tokens=128, window_steps=8, pages=pages)
    assumed = {"problems": 4, "samples": 4, "prompt_tokens": 17, "response_tokens": 48, "limit": 96}
    return paged_rows(engine, spread=spread, problem_share=0.5, **(assumed | fields))


def test_equal_rows_in_a_large_pool_by_hand():
    """Two waves of 8 rows that go from 16 to 65 tokens: 7 windows of 8 each, the last of one token."""
    found = rows(8 * 128)
    assert (found.windows, found.rows, found.most_rows) == (14, 8.0, 8)
    assert (found.moved_rows, found.moved_pages) == (0, 0)
    lengths = [16, 24, 32, 40, 48, 56, 64, 65]
    means = [(a + b) / 2 for a, b in itertools.pairwise(lengths)]
    assert found.live_tokens == pytest.approx(sum(means) / 7)


def test_a_smaller_pool_decodes_fewer_rows_for_longer():
    large, small = rows(8 * 128, spread=0.7), rows(256, spread=0.7)
    assert small.windows > large.windows
    assert small.rows < large.rows
    assert small.moved_rows > 0
    # The same tokens in all: rows x windows, but for windows that rows end in.
    assert small.rows * small.windows == pytest.approx(large.rows * large.windows, rel=0.02)
    one = rows(128, spread=0.7)  # a pool of one long row still ends
    assert one.windows > small.windows


def test_drawn_lengths_have_the_mean_that_was_asked_for():
    drawn = draw_lengths(500, 1000, spread=0.7, problem_share=0.5, problems=500, samples=8, seed=1)
    assert max(drawn) == 1000
    assert sum(drawn) / len(drawn) == pytest.approx(500, rel=0.05)
    assert draw_lengths(500, 1000, spread=0, problem_share=0.5, problems=2, samples=1) == [500, 500]


def test_steps_over_pages_by_hand():
    """24 rows of 5632 tokens in pages of 1024: 5632 / 1024 + 1/2 = 6 blocks a row."""
    steps = cache_steps(
        rows=24,
        columns=1,
        start=5632,
        positions=18432,
        kv_heads=2,
        group=5,
        head_dim=128,
        value_bytes=1,
        scale_bytes=4,
        is_anywhere=True,
        page=1024,
    )
    assert (steps.active, steps.read_bytes) == (24 * 6.0, 24 * 6.0 * 1024 * 528)


def test_the_last_page_of_a_row_is_copied_up_to_its_token():
    """24 rows, 5632 / 2048 + 1/2 = 3.25 pages: all scales of 16 bytes, half a piece of 1024 more than tokens of 512."""
    shape = {"kv_heads": 2, "group": 5, "head_dim": 128, "value_bytes": 1, "scale_bytes": 4}
    steps = cache_steps(
        rows=24, columns=1, start=5632, positions=18432, is_anywhere=True, page=2048, **shape
    )
    assert steps.active == 24 * 3.25
    assert steps.read_bytes == 24 * (3.25 * 2048 * 16 + (5632 + 512) * 512)


def test_windows_of_a_step_are_those_of_the_pool(tmp_path):
    base = rl_config(tmp_path)
    tokens = base.engine.max_tokens
    pages = PagesConfig(page_tokens=tokens // 4, pool_tokens=2 * tokens, headroom_tokens=8)
    config = dataclasses.replace(base, engine=dataclasses.replace(base.engine, pages=pages))
    assumed = dataclasses.replace(default_assumptions(config), length_spread=0.0, tool_calls=0.0)
    found = rows_in_pages(config, assumed, 1, config.engine)
    runs = runs_per_step(config, assumed, 1, paged=found)
    assert runs[names.WINDOW] == found.windows
    assert runs[names.WINDOW] > math.ceil(runs_per_step(config, assumed, 1)[names.WINDOW] / 2)
