"""A paged engine gives the tokens of the contiguous one, whatever the pool, the latencies and who moves."""

import dataclasses
import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.decoding import (
    SMALL,
    Job,
    assert_nearly_same_rows,
    assert_same_rows,
    make_engine,
    random_jobs,
    run_jobs,
)
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.core import rng
from jaxtool.decode.memory import plan_memory
from jaxtool.decode.pages_config import PagesConfig
from jaxtool.decode.pieces import Placement
from jaxtool.decode.publish import DecoderNumerics
from jaxtool.decode.sampling import Sampling
from jaxtool.model.kv_cache import cache_bytes
from jaxtool.model.paged_attention import gather_pages
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = FAMILIES["qwen3"]
THIN = dataclasses.replace(MODEL, num_layers=1)
ONE_VIEW = dataclasses.replace(SMALL, min_view=64)  # pages are read to the end of the view
# Another order of sums in another program, float32, of log-probs around 5 nats.
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def wanted(params):
    jobs = random_jobs(24, outputs=(2, 9, 14), seed=5)
    return jobs, run_jobs(make_engine(MODEL, params), jobs)


def paged(params, pool_tokens, *, model=MODEL, page_tokens=8, headroom=8, **fields):
    pages = PagesConfig(
        page_tokens=page_tokens,
        pool_tokens=pool_tokens,
        headroom_tokens=headroom,
        pages_in_flight=2,
    )
    return make_engine(model, params, dataclasses.replace(ONE_VIEW, pages=pages, **fields))


@pytest.mark.parametrize("pool_tokens", [160, 64])
def test_a_pool_of_any_size_gives_the_tokens_of_the_contiguous_cache(params, wanted, pool_tokens):
    """Down to a pool that holds one row of `max_tokens`: rows that wait for tools move, and the run ends."""
    jobs, rows = wanted
    engine = paged(params, pool_tokens)
    waits = random.Random(pool_tokens)
    got = run_jobs(engine, jobs, latency=lambda: waits.randrange(6))
    assert_same_rows(got, rows, atol=TOLERANCE)
    assert engine.counts.reprefilled_tokens == 0
    assert engine.counts.moved_rows > 5
    engine._paged.pool.check()
    assert engine._paged.pool.num_free == engine.config.pages.num_pages
    assert engine._paged.host_pages == 0


def test_admission_by_expected_need_moves_fewer_rows_than_taking_every_free_one(params, wanted):
    jobs, rows = wanted
    moved = {}
    for by_need in (False, True):
        engine = paged(params, 160, headroom=32)
        got = run_jobs(engine, jobs, by_need=by_need)
        assert_same_rows(got, rows, atol=TOLERANCE)
        moved[by_need] = engine.counts.moved_rows
    assert moved[True] < moved[False] / 2, moved


def test_rows_of_a_group_share_the_full_pages_of_their_prompt(params):
    """A prompt of 21 tokens has 20 in the cache: two full pages of 8 for all, and half a page for each."""
    prompt = tuple(range(20, 41))
    group = [Job(name=f"sample {i}", prompt=prompt, limit=60) for i in range(5)]
    wanted = run_jobs(make_engine(MODEL, params), group, shares_prompts=True)
    engine = paged(params, 160)
    [prefilled] = engine.prefill([prompt])
    cache_rows = [engine.take_cache_row(len(prompt)) for _ in group]
    placements = [
        Placement(cache_row=row, prompt=prefilled, row_key=rng.row_key(0, job.name), max_length=60)
        for row, job in zip(cache_rows, group, strict=True)
    ]
    engine.place(placements)
    pool = engine._paged.pool
    assert pool.num_pages - pool.num_free == 2 + 5
    held = [pool.pages(row) for row in cache_rows]
    assert all(pages[:2] == held[0][:2] for pages in held)
    for row in cache_rows:
        engine.release(row)
    assert pool.num_free == pool.num_pages
    got = run_jobs(engine, group, shares_prompts=True)
    assert_same_rows(got, wanted, atol=TOLERANCE)
    assert engine.counts.prefilled_tokens == 2 * 20


def test_a_row_that_has_moved_comes_back_bit_for_bit(params):
    """Also its share of the prompt, into other pages."""
    engine = paged(params, 160)
    [prompt] = engine.prefill([tuple(range(20, 41))])
    row = engine.take_cache_row(21)
    engine.place(
        [Placement(cache_row=row, prompt=prompt, row_key=rng.row_key(0, "a"), max_length=60)]
    )
    paged_cache, pool = engine._paged, engine._paged.pool

    def content() -> list[np.ndarray]:
        table = paged_cache.tables(np.asarray([row]), 64)
        held = [gather_pages(layer, jnp.asarray(table)) for layer in engine._cache]
        return [np.asarray(x)[:, :, :20] for x in jax.tree.leaves(held)]

    before, pages = content(), pool.pages(row)
    engine._cache = paged_cache._move_out(engine._cache, row)
    assert (pool.num_free, paged_cache.host_pages) == (pool.num_pages, 3)
    pool.open(99, 40)  # takes the pages that were free
    engine._cache = jax.tree.map(lambda x: x.at[jnp.asarray(pages)].set(0), engine._cache)
    engine._cache = paged_cache._return(engine._cache, row, engine._rows, engine._ages)
    assert not set(pages) & set(pool.pages(row))
    for x, y in zip(content(), before, strict=True):
        np.testing.assert_array_equal(x, y)
        assert np.std(y) > 0.01
    assert paged_cache.host_pages == 0


def test_int8_pages_give_the_tokens_of_the_int8_cache():
    params = random_params(THIN)
    numerics = DecoderNumerics(cache="int8")
    jobs = random_jobs(12, outputs=(2, 14), seed=7)
    small = dataclasses.replace(ONE_VIEW, numerics=numerics)
    wanted = run_jobs(make_engine(THIN, params, small), jobs)
    engine = paged(params, 96, model=THIN, numerics=numerics)
    got = run_jobs(engine, jobs)
    assert engine.counts.moved_rows
    # int8 codes round either way where sums differ in their last bit.
    assert_nearly_same_rows(got, wanted, atol=2e-2, otherwise=1)


def test_two_devices_that_share_the_heads_give_the_same_tokens():
    params, jobs = random_params(THIN), random_jobs(10, outputs=(2, 14), seed=9)
    mesh = make_mesh(MeshConfig(tensor=2), jax.devices()[:2])
    pages = PagesConfig(page_tokens=8, pool_tokens=96, headroom_tokens=8)
    config = dataclasses.replace(ONE_VIEW, pages=pages)
    engine = make_engine(THIN, params, config, Sharding(mesh, axis_rules.decode()))
    wanted = run_jobs(make_engine(THIN, params, ONE_VIEW), jobs)
    assert_same_rows(run_jobs(engine, jobs), wanted, atol=TOLERANCE)
    assert engine.counts.moved_rows


def test_rows_that_are_sharded_over_devices_are_refused(params):
    mesh = make_mesh(MeshConfig(data=2), jax.devices()[:2])
    config = dataclasses.replace(SMALL, pages=PagesConfig(page_tokens=8, pool_tokens=96))
    with pytest.raises(ValueError, match=r"set MeshConfig\.tensor to the 2 devices of a host"):
        make_engine(MODEL, params, config, Sharding(mesh, axis_rules.decode()))


def test_everything_is_compiled_ahead():
    """Windows, appends, placement and both ways of a page: no program is late."""
    engine = paged(random_params(THIN), 64, model=THIN, cache_rows=12, prefill_chunk=16)
    engine.compile([Sampling()], longest_prompt=40)
    with compilations() as made:
        run_jobs(engine, random_jobs(12, outputs=(2, 14), seed=8))
    assert engine.counts.moved_rows
    assert engine.counts.late_programs == 0
    assert made == []


def test_a_pool_fills_the_memory_or_says_what_does_not_fit():
    def plan(gib: float, **fields):
        pages = PagesConfig(page_tokens=8, **fields)
        config = dataclasses.replace(SMALL, pages=pages, memory_gib=gib)
        return plan_memory(MODEL, config, single_device())

    filled = plan(0.02)
    assert filled.config.pages.num_pages > 8
    assert filled.total <= 0.9 * 0.02 * 2**30
    page = cache_bytes(MODEL, 1, 8)
    assert filled.total + page > 0.9 * 0.02 * 2**30
    assert filled.pool == filled.config.pages.num_pages * page
    assert filled.host == 7 * 8 * page
    with pytest.raises(ValueError, match=r"pool_tokens=80000 needs 10000 pages .* fit into"):
        plan(0.02, pool_tokens=80000)
    with pytest.raises(ValueError, match=r"a row of EngineConfig\.max_tokens=64 needs 8 pages"):
        plan((filled.total - filled.pool + 7.5 * page) / 0.9 / 2**30)
