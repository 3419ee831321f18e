"""A paged engine gives the tokens of the contiguous one, whatever the pool, the latencies and who moves."""

import dataclasses
import random

import pytest
from helpers.decoding import SMALL, assert_same_rows, make_engine, random_jobs, run_jobs
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.decode.pages_config import PagesConfig

MODEL = FAMILIES["qwen3"]
# Another order of sums in another program, float32, of log-probs around 5 nats.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def wanted(params):
    jobs = random_jobs(24, outputs=(2, 9, 14), seed=5)
    return jobs, run_jobs(make_engine(MODEL, params), jobs)


def paged(params, pool_tokens, *, page_tokens=8, headroom=8, **fields):
    pages = PagesConfig(
        page_tokens=page_tokens,
        pool_tokens=pool_tokens,
        headroom_tokens=headroom,
        pages_in_flight=2,
    )
    return make_engine(MODEL, params, dataclasses.replace(SMALL, pages=pages, **fields))


@pytest.mark.parametrize(
    ("pool_tokens", "moves"), [(8 * 64, False), (160, True), (64, True)], ids=str
)
def test_a_pool_of_any_size_gives_the_tokens_of_the_contiguous_cache(
    params, wanted, pool_tokens, moves
):
    """Down to a pool that holds one row of `max_tokens`: rows that wait for tools move, and the run ends."""
    jobs, rows = wanted
    engine = paged(params, pool_tokens)
    waits = random.Random(pool_tokens)
    got = run_jobs(engine, jobs, latency=lambda: waits.randrange(6))
    assert_same_rows(got, rows, atol=TOLERANCE)
    assert engine.counts.reprefilled_tokens == 0
    assert (engine.counts.moved_rows > 0) == moves
    engine._paged.pool.check()
    assert engine._paged.pool.num_free == engine.config.pages.num_pages
    assert engine._paged.host_pages == 0
