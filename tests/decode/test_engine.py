"""The decoder with its kept cache against the slow path: the whole sequence through the training forward pass."""

import dataclasses
import random

import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.decoding import (
    SMALL,
    STOPS,
    Job,
    assert_kept_is_prefilled_again,
    assert_same_rows,
    assert_teacher_forced,
    make_engine,
    random_jobs,
    run_jobs,
    teacher_forced,
)
from helpers.tiny_models import FAMILIES, VOCAB, random_params

from jaxtool.core import rng
from jaxtool.decode import programs
from jaxtool.decode.engine import EngineConfig
from jaxtool.decode.pieces import Placement
from jaxtool.decode.sampling import Sampling

MODEL = FAMILIES["qwen3"]
OUTPUTS = (1, SMALL.forced_tokens, SMALL.forced_tokens + 1, 3 * SMALL.forced_tokens + 2)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def engine(params):
    return make_engine(MODEL, params)


def test_decoder_logprobs_equal_the_training_forward_pass(engine, params):
    rows = run_jobs(engine, random_jobs(12))
    assert_teacher_forced(params, rows.values(), model=MODEL)


@pytest.mark.parametrize("length", OUTPUTS)
def test_paused_and_resumed_equals_uninterrupted_teacher_forcing(engine, params, length):
    """Outputs that ride the window, the threshold itself, one more, and several chunks."""
    before = dataclasses.replace(engine.counts)
    rows = run_jobs(engine, random_jobs(10, outputs=(length, length), seed=length))
    assert sum(len(row.job.outputs) - len(row.outputs) for row in rows.values()) > 5
    assert_teacher_forced(params, rows.values(), model=MODEL)
    assert engine.counts.reprefilled_tokens == 0
    given = sum(
        len(o) * (len(r.job.outputs) - len(r.outputs))
        for r in rows.values()
        for o in r.job.outputs[:1]
    )
    assert engine.counts.appended_tokens - before.appended_tokens == given


@pytest.mark.parametrize("length", OUTPUTS)
def test_a_kept_cache_gives_the_tokens_that_prefilling_everything_again_gives(engine, length):
    assert_kept_is_prefilled_again(engine, length, seed=90 + length)


def test_neighbours_cache_rows_order_and_latency_change_nothing(engine):
    jobs = random_jobs(20, outputs=(2, 9), seed=5)
    together = run_jobs(engine, jobs)
    shuffled = list(jobs)
    random.Random(1).shuffle(shuffled)
    waits = random.Random(2)
    assert_same_rows(run_jobs(engine, shuffled, latency=lambda: waits.randrange(5)), together)
    alone = {}
    for job in jobs[:4]:
        alone |= run_jobs(engine, [job])
    assert_same_rows(alone, {name: together[name] for name in alone})


def test_cache_rows_are_released_and_refilled(engine):
    assert engine.num_free == SMALL.decode_rows
    rows = run_jobs(engine, random_jobs(3 * SMALL.decode_rows, seed=6))
    assert len(rows) == 3 * SMALL.decode_rows
    assert engine.num_free == SMALL.decode_rows
    assert not engine.is_any_running


def test_a_prompt_is_prefilled_once_and_broadcast_to_its_samples(engine, params):
    before = engine.counts.prefilled_tokens
    prompt = tuple(range(20, 29))
    [prefilled] = engine.prefill([prompt])
    assert engine.counts.prefilled_tokens - before == len(prompt) - 1
    cache_rows = [engine.take_cache_row() for _ in range(5)]
    placements = [
        Placement(
            cache_row=s, prompt=prefilled, row_key=rng.row_key(0, f"sample {i}"), max_length=60
        )
        for i, s in enumerate(cache_rows)
    ]
    engine.place(placements)
    log = engine.fetch(engine.dispatch_window())
    assert engine.counts.prefilled_tokens - before == len(prompt) - 1
    alone = run_jobs(engine, [Job(name=f"sample {i}", prompt=prompt) for i in range(5)])
    firsts = [int(log.tokens[0, s]) for s in cache_rows]
    assert firsts == [alone[f"sample {i}"].ids[len(prompt)] for i in range(5)]
    assert len(set(firsts)) > 1
    for cache_row in cache_rows:
        engine.release(cache_row)


def test_limit_and_stop_tokens_end_a_row_and_nothing_else_does(engine):
    jobs = [dataclasses.replace(j, limit=len(j.prompt) + 3) for j in random_jobs(12, seed=7)]
    rows = run_jobs(engine, jobs)
    reasons = set()
    for row in rows.values():
        new = row.ids[len(row.job.prompt) :]
        assert 1 <= len(new) <= 3
        assert not set(new[:-1]) & set(STOPS)
        reasons.add("limit" if len(new) == 3 else "stop")
        assert len(new) == 3 or new[-1] in STOPS
    assert reasons == {"limit", "stop"}


def test_a_row_that_is_resumed_goes_on_as_if_it_had_not_stopped(engine, params):
    never = make_engine(MODEL, params, stops=())
    [job] = random_jobs(1, seed=8)
    job = dataclasses.replace(job, limit=40)
    wanted = run_jobs(never, [job])[job.name]
    assert set(wanted.ids[len(job.prompt) :]) & set(STOPS)
    [prompt] = engine.prefill([job.prompt])
    cache_row = engine.take_cache_row()
    key = rng.row_key(0, job.name)
    engine.place([Placement(cache_row=cache_row, prompt=prompt, row_key=key, max_length=job.limit)])
    ids = list(job.prompt)
    while len(ids) < job.limit:
        if not engine.is_running(cache_row):
            engine.resume(cache_row)
        log = engine.fetch(engine.dispatch_window())
        ids += log.tokens[log.is_sampled[:, cache_row], cache_row].tolist()
    engine.release(cache_row)
    assert ids == wanted.ids


def test_one_window_of_k_steps_equals_k_windows_of_one(engine, params):
    single = make_engine(MODEL, params, dataclasses.replace(SMALL, window_steps=1))
    jobs = random_jobs(6, outputs=(3,), seed=9)
    assert_same_rows(run_jobs(single, jobs), run_jobs(engine, jobs))


def test_greedy_rows_follow_the_most_likely_token(engine, params):
    rows = run_jobs(engine, random_jobs(4, seed=10), sampling=Sampling(temperature=0.0))
    for row in rows.values():
        start = len(row.job.prompt)
        best = max(
            range(VOCAB),
            key=lambda t, ids=row.ids[:start]: teacher_forced(params, MODEL, [[*ids, t]])[0][-1],
        )
        assert row.ids[start] == best
        break
    assert_teacher_forced(params, rows.values(), model=MODEL)


def test_logprobs_are_those_of_the_tempered_distribution(engine, params):
    rows = run_jobs(engine, random_jobs(8, seed=11), sampling=Sampling(temperature=0.7))
    assert_teacher_forced(params, rows.values(), temperature=0.7, model=MODEL)


def test_nothing_is_compiled_after_the_warm_up(engine, params):
    """Other lengths, other numbers of rows, other tool outputs: the same programs."""
    run_jobs(engine, random_jobs(12, outputs=(1, 9, 20), seed=12))
    engine.load(params)
    sizes = {p: p._cache_size() for p in (programs.window, programs.append, programs.place)}
    with compilations() as compiled:
        for seed, count in ((13, 1), (14, 5), (15, 17)):
            engine.load(params)
            run_jobs(engine, random_jobs(count, outputs=(seed - 9, 15, 3), seed=seed))
    assert compiled == []
    assert sizes == {p: p._cache_size() for p in sizes}


def test_a_prompt_that_does_not_fit_is_refused_by_name(engine):
    with pytest.raises(ValueError, match=r"prompt of 64 tokens .* EngineConfig.max_tokens=64"):
        engine.prefill([[1] * 64])
    with pytest.raises(ValueError, match="prompt of 0 tokens"):
        engine.prefill([[]])
    assert engine.num_free == SMALL.decode_rows


def test_an_engine_without_parameters_says_so():
    from jaxtool.decode.engine import DecodeEngine
    from jaxtool.parallel.axis_rules import single_device

    bare = DecodeEngine(
        model=MODEL, config=SMALL, sharding=single_device(), is_stop=np.zeros(VOCAB, bool)
    )
    with pytest.raises(RuntimeError, match="call load"):
        bare.prefill([[1, 2]])


def test_an_engine_unloads_and_comes_back_but_never_under_a_row(params):
    engine = make_engine(MODEL, params)
    jobs = random_jobs(3, outputs=(3,), seed=18)
    before = run_jobs(engine, jobs)
    engine.unload()
    with pytest.raises(RuntimeError, match="call load"):
        engine.prefill([[1, 2]])
    engine.load(params)
    assert_same_rows(run_jobs(engine, jobs), before)
    engine.take_cache_row()
    with pytest.raises(RuntimeError, match="1 cache rows are still taken"):
        engine.unload()


def test_sizes_double_up_to_the_longest():
    config = EngineConfig(max_tokens=100, min_view=30, min_prompt_bucket=128)
    assert config.views == (30, 60, 100)
    assert config.prompt_buckets == (100,)
    with pytest.raises(ValueError, match=r"EngineConfig.max_tokens must be > 0, got 0"):
        EngineConfig(max_tokens=0)
