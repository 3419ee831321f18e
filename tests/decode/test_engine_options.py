"""Every option of the decoder gives the tokens of the plain one, and ahead-of-time programs suffice."""

import dataclasses
import random

import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.decoding import (
    SMALL,
    assert_kept_is_prefilled_again,
    assert_same_rows,
    assert_teacher_forced,
    make_engine,
    random_jobs,
    run_jobs,
)
from helpers.tiny_models import FAMILIES, random_params

from jaxtool.decode.sampling import Sampling
from jaxtool.model import attention_backends, pallas_attention, transformer
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = dataclasses.replace(FAMILIES["qwen3"], num_layers=1)  # two: test_engine


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def engine(params):
    return make_engine(MODEL, params)


OPTIONS = {
    "more cache rows than decode rows": {"cache_rows": 16, "decode_rows": 4},
    "narrow windows": {"min_decode_rows": 2},
    "windows that end early": {"refill_below": 0.75},
    "prefill in chunks": {"prefill_chunk": 4},
    "all of them": {
        "cache_rows": 12,
        "decode_rows": 4,
        "min_decode_rows": 1,
        "refill_below": 1.0,
        "prefill_chunk": 3,
        "min_view": 16,
    },
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_option_gives_the_tokens_of_the_plain_engine(engine, params, option):
    jobs = random_jobs(20, outputs=(2, 9), seed=20)
    jobs += [dataclasses.replace(j, prompt=j.prompt * 3, name=j.name + "x") for j in jobs[:8]]
    other = make_engine(MODEL, params, dataclasses.replace(SMALL, **OPTIONS[option]))
    waits = random.Random(3)
    rows = run_jobs(other, jobs, latency=lambda: waits.randrange(4))
    assert_same_rows(rows, run_jobs(engine, jobs))
    assert other.counts.reprefilled_tokens == 0
    assert other.num_free == other.config.num_cache_rows
    if option == "windows that end early":
        assert other.counts.steps < SMALL.window_steps * other.counts.windows


def test_keys_first_gives_the_tokens_of_the_other_order(engine, params, monkeypatch):
    """Greedy and sampled rows, paused and not. Windows of five steps: no program is made elsewhere."""
    orders = []

    def watched(*args, keys_first):
        orders.append(keys_first)
        return cached_attention(*args, keys_first=keys_first)

    jobs = random_jobs(12, outputs=(2, 9), seed=25)
    ways = (Sampling(temperature=0.0), Sampling())
    wanted = [run_jobs(engine, jobs, sampling=sampling) for sampling in ways]  # in the other order
    cached_attention = attention_backends.cached_attention
    monkeypatch.setattr(attention_backends, "_NEAR_KEY_BYTES", 0)
    monkeypatch.setattr(attention_backends, "cached_attention", watched)
    other = make_engine(MODEL, params, dataclasses.replace(SMALL, window_steps=5, min_view=64))
    got = [run_jobs(other, jobs, sampling=sampling) for sampling in ways]
    for rows, others in zip(got, wanted, strict=True):
        assert_same_rows(rows, others)
    assert_teacher_forced(params, got[1].values(), model=MODEL)
    assert_kept_is_prefilled_again(other, 9, seed=99)
    assert orders.count(True) == 2 * MODEL.num_layers  # one window for each of the two ways


def test_the_kernel_over_the_cache_gives_the_training_forward_pass(monkeypatch):
    """Interpreted, in every program of a paused row, over blocks of 16 positions."""
    columns = set()

    def by_kernel(q, cache, positions, config, sharding):
        columns.add((q.shape[1], cache.k.shape[2]))
        return pallas_attention.flash_cached_attention(q, cache, positions, interpret=True)

    monkeypatch.setattr(transformer, "attend_to_cache", by_kernel)
    monkeypatch.setattr(pallas_attention, "_MOST_POSITIONS", 16)
    # A shape of its own, so that no other test finds these programs.
    model = dataclasses.replace(MODEL, num_layers=1, d_ff=48)
    params = random_params(model)
    config = dataclasses.replace(SMALL, min_view=64, min_prompt_bucket=16)
    other = make_engine(model, params, config)
    rows = run_jobs(other, random_jobs(10, outputs=(2, 9), seed=26))
    assert sum(not row.outputs for row in rows.values()) >= 2
    assert_teacher_forced(params, rows.values(), model=model)
    assert columns == {(16, 16), (SMALL.forced_tokens, 64), (1, 64)}


def test_running_every_row_again_gives_the_same_tokens_and_is_counted(engine, params):
    other = make_engine(MODEL, params)
    jobs = random_jobs(12, outputs=(2, 9), seed=21)
    rows = run_jobs(other, jobs, reruns=True)
    assert_same_rows(rows, run_jobs(engine, jobs))
    again = 0
    for row in rows.values():
        is_tool = np.isnan(row.logprobs)
        is_tool[: len(row.job.prompt)] = False
        first = np.flatnonzero(is_tool & ~np.roll(is_tool, 1))
        again += int((first - 1).sum())  # all before the output but the pending token
    assert again > 100
    assert other.counts.reprefilled_tokens == again


def test_useful_row_steps_are_those_in_which_a_row_ran(engine, params):
    other = make_engine(MODEL, params)
    rows = run_jobs(other, random_jobs(12, outputs=(2, 9), seed=22))
    # Every token but the prompt's is made pending by one step, except those of chunks.
    made = sum(len(row.ids) - len(row.job.prompt) for row in rows.values())
    chunked = sum(9 for row in rows.values() if not row.outputs)
    assert chunked > 0
    assert other.counts.useful_row_steps == made - chunked
    assert other.counts.row_steps == SMALL.decode_rows * other.counts.steps


@pytest.mark.parametrize("devices", [1, 8])
def test_an_engine_compiled_ahead_compiles_nothing_later(params, devices):
    """Every program, of every width, view, bucket and sampling mode."""
    fields = {"cache_rows": 12, "decode_rows": 4, "prefill_chunk": 16, "min_view": 64}
    config = dataclasses.replace(SMALL, **fields, window_steps=3)
    if devices == 1:
        config, sharding = dataclasses.replace(config, min_decode_rows=2), None
    else:
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        sharding = Sharding(mesh, axis_rules.decode())
    other = make_engine(MODEL, params, config, sharding)
    told = []
    nucleus = Sampling(top_p=0.9)
    count = other.compile([Sampling(), nucleus], lambda *news: told.append(news))
    assert [news[:2] for news in told] == [(i + 1, len(told)) for i in range(len(told))]
    assert count == len(told) >= 2 * len(config.widths) + 1 + 2 * 4
    jobs = random_jobs(14, outputs=(2, 9), seed=23)
    jobs += [dataclasses.replace(j, prompt=j.prompt * 4, name=j.name + "x") for j in jobs[:6]]
    with compilations() as compiled:
        run_jobs(other, jobs)
        run_jobs(other, jobs, sampling=nucleus)
    assert compiled == []
    assert other.counts.late_programs == 0
    run_jobs(other, jobs[:2], sampling=Sampling(temperature=0.0))
    assert other.counts.late_programs > 0


def test_rows_of_one_window_each_draw_in_their_own_way(engine, params):
    ways = (Sampling(temperature=0.0), Sampling(temperature=0.6), Sampling(top_k=3))
    ways += (Sampling(), Sampling(top_p=0.7), Sampling(min_p=0.2, temperature=2.0))
    jobs = [
        dataclasses.replace(job, sampling=ways[i % len(ways)])
        for i, job in enumerate(random_jobs(18, outputs=(3,), seed=24))
    ]
    mixed = run_jobs(engine, jobs)
    for way in ways:
        mine = [job for job in jobs if job.sampling is way]
        assert_same_rows(run_jobs(engine, mine), {job.name: mixed[job.name] for job in mine})
    plain = run_jobs(engine, [dataclasses.replace(job, sampling=None) for job in jobs])
    assert sum(plain[job.name].ids != mixed[job.name].ids for job in jobs) > 6


def test_eight_devices_give_the_tokens_of_one(engine, params):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    sharded = make_engine(MODEL, params, sharding=Sharding(mesh, axis_rules.decode()))
    jobs = random_jobs(10, outputs=(3, 9), seed=16)
    assert_same_rows(run_jobs(sharded, jobs), run_jobs(engine, jobs))


def test_rows_that_the_mesh_does_not_divide_are_refused(params):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    config = dataclasses.replace(SMALL, decode_rows=6)
    with pytest.raises(ValueError, match=r"decode_rows=6 must be a multiple of data x fsdp = 4"):
        make_engine(MODEL, params, config, Sharding(mesh, axis_rules.decode()))
