"""The slot decoder against the slow path: the whole sequence through the training forward pass."""

import dataclasses
import random

import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.decoding import (
    SMALL,
    STOPS,
    Job,
    assert_same_rows,
    make_engine,
    random_jobs,
    run_jobs,
    teacher_forced,
)
from helpers.tiny_models import FAMILIES, VOCAB, random_params

from jaxtool.core import rng
from jaxtool.decode import programs
from jaxtool.decode.engine import EngineConfig, Placement
from jaxtool.decode.sampling import Sampling
from jaxtool.model import attention_backends, pallas_attention, transformer
from jaxtool.parallel import axis_rules
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh

MODEL = FAMILIES["qwen3"]
OUTPUTS = (1, SMALL.forced_tokens, SMALL.forced_tokens + 1, 3 * SMALL.forced_tokens + 2)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def engine(params):
    return make_engine(MODEL, params)


def assert_teacher_forced(params, rows, temperature=1.0, model=MODEL):
    rows = list(rows)
    expected = teacher_forced(params, model, [row.ids for row in rows], temperature)
    compared = 0
    for row, wanted in zip(rows, expected, strict=True):
        got = np.asarray(row.logprobs)
        is_policy = ~np.isnan(got)
        compared += is_policy.sum()
        np.testing.assert_allclose(got[is_policy], wanted[is_policy], atol=1e-4)
    assert compared > 20


def test_decoder_logprobs_equal_the_training_forward_pass(engine, params):
    rows = run_jobs(engine, random_jobs(12))
    assert_teacher_forced(params, rows.values())


@pytest.mark.parametrize("length", OUTPUTS)
def test_paused_and_resumed_equals_uninterrupted_teacher_forcing(engine, params, length):
    """Outputs that ride the window, the threshold itself, one more, and several chunks."""
    before = dataclasses.replace(engine.counts)
    rows = run_jobs(engine, random_jobs(10, outputs=(length, length), seed=length))
    assert sum(len(row.job.outputs) - len(row.outputs) for row in rows.values()) > 5
    assert_teacher_forced(params, rows.values())
    assert engine.counts.reprefilled_tokens == 0
    given = sum(
        len(o) * (len(r.job.outputs) - len(r.outputs))
        for r in rows.values()
        for o in r.job.outputs[:1]
    )
    assert engine.counts.appended_tokens - before.appended_tokens == given


@pytest.mark.parametrize("length", OUTPUTS)
def test_a_kept_cache_gives_the_tokens_that_prefilling_everything_again_gives(engine, length):
    assert_kept_is_prefilled_again(engine, length)


def assert_kept_is_prefilled_again(engine, length):
    rows = run_jobs(engine, random_jobs(6, outputs=(length,), seed=90 + length))
    resumed = [row for row in rows.values() if not row.outputs and not np.isnan(row.logprobs[-1])]
    assert len(resumed) >= 2
    again = []
    for row in resumed:
        start = 1 + int(np.flatnonzero(np.isnan(row.logprobs))[-1])
        again.append(dataclasses.replace(row.job, prompt=tuple(row.ids[:start]), outputs=()))
    others = run_jobs(engine, again)
    for row in resumed:
        assert others[row.job.name].ids == row.ids
    assert engine.counts.reprefilled_tokens == 0


def test_neighbours_slots_order_and_latency_change_nothing(engine):
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


def test_slots_are_released_and_refilled(engine):
    assert engine.num_free == SMALL.slots
    rows = run_jobs(engine, random_jobs(3 * SMALL.slots, seed=6))
    assert len(rows) == 3 * SMALL.slots
    assert engine.num_free == SMALL.slots
    assert not engine.is_any_running


def test_a_prompt_is_prefilled_once_and_broadcast_to_its_samples(engine, params):
    before = engine.counts.prefilled_tokens
    prompt = tuple(range(20, 29))
    [prefilled] = engine.prefill([prompt])
    assert engine.counts.prefilled_tokens - before == len(prompt) - 1
    slots = [engine.take_slot() for _ in range(5)]
    placements = [
        Placement(slot=s, prompt=prefilled, row_key=rng.row_key(0, f"sample {i}"), limit=60)
        for i, s in enumerate(slots)
    ]
    engine.place(placements)
    log = engine.fetch(engine.dispatch_window())
    assert engine.counts.prefilled_tokens - before == len(prompt) - 1
    alone = run_jobs(engine, [Job(name=f"sample {i}", prompt=prompt) for i in range(5)])
    firsts = [int(log.tokens[0, s]) for s in slots]
    assert firsts == [alone[f"sample {i}"].ids[len(prompt)] for i in range(5)]
    assert len(set(firsts)) > 1
    for slot in slots:
        engine.release(slot)


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
    slot = engine.take_slot()
    key = rng.row_key(0, job.name)
    engine.place([Placement(slot=slot, prompt=prompt, row_key=key, limit=job.limit)])
    ids = list(job.prompt)
    while len(ids) < job.limit:
        if not engine.is_running(slot):
            engine.resume(slot)
        log = engine.fetch(engine.dispatch_window())
        ids += log.tokens[log.is_sampled[:, slot], slot].tolist()
    engine.release(slot)
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
    assert_teacher_forced(params, rows.values())


def test_logprobs_are_those_of_the_tempered_distribution(engine, params):
    rows = run_jobs(engine, random_jobs(8, seed=11), sampling=Sampling(temperature=0.7))
    assert_teacher_forced(params, rows.values(), temperature=0.7)


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


OPTIONS = {
    "more cache rows than slots": {"rows": 16, "slots": 4},
    "narrow windows": {"min_slots": 2},
    "windows that end early": {"refill_below": 0.75},
    "prefill in chunks": {"prefill_chunk": 4},
    "all of them": {
        "rows": 12,
        "slots": 4,
        "min_slots": 1,
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
    assert other.num_free == other.config.cache_rows
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
    assert_teacher_forced(params, got[1].values())
    assert_kept_is_prefilled_again(other, 9)
    assert orders.count(True) == 2 * MODEL.num_layers  # one window for each of the two ways


def test_the_kernel_over_the_cache_gives_the_training_forward_pass(monkeypatch):
    """Interpreted, in every program of a paused row, over blocks of 16 slots."""
    columns = set()

    def by_kernel(q, cache, positions, config, sharding):
        columns.add((q.shape[1], cache.k.shape[2]))
        return pallas_attention.flash_cached_attention(q, cache, positions, interpret=True)

    monkeypatch.setattr(transformer, "attend_to_cache", by_kernel)
    monkeypatch.setattr(pallas_attention, "_MOST_SLOTS", 16)
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


def test_useful_slot_steps_are_those_in_which_a_row_ran(engine, params):
    other = make_engine(MODEL, params)
    rows = run_jobs(other, random_jobs(12, outputs=(2, 9), seed=22))
    # Every token but the prompt's is made pending by one step, except those of chunks.
    made = sum(len(row.ids) - len(row.job.prompt) for row in rows.values())
    chunked = sum(9 for row in rows.values() if not row.outputs)
    assert chunked > 0
    assert other.counts.useful_slot_steps == made - chunked
    assert other.counts.slot_steps == SMALL.slots * other.counts.steps


@pytest.mark.parametrize("devices", [1, 8])
def test_an_engine_compiled_ahead_compiles_nothing_later(params, devices):
    """Every program, of every width, view, bucket and way of drawing."""
    fields = {"rows": 12, "slots": 4, "prefill_chunk": 16, "min_view": 64}
    config = dataclasses.replace(SMALL, **fields, window_steps=3)
    if devices == 1:
        config, sharding = dataclasses.replace(config, min_slots=2), None
    else:
        mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
        sharding = Sharding(mesh, axis_rules.decode())
    other = make_engine(MODEL, params, config, sharding)
    told = []
    nucleus = Sampling(top_p=0.9)
    count = other.compile([Sampling(), nucleus], lambda *news: told.append(news))
    assert [news[:2] for news in told] == [(i + 1, len(told)) for i in range(len(told))]
    assert count > len(told) >= len(config.widths) * 2 + 1 + 4
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
    config = dataclasses.replace(SMALL, slots=6)
    with pytest.raises(ValueError, match=r"slots=6 must be a multiple of data x fsdp = 4"):
        make_engine(MODEL, params, config, Sharding(mesh, axis_rules.decode()))


def test_a_prompt_that_does_not_fit_is_refused_by_name(engine):
    with pytest.raises(ValueError, match=r"prompt of 64 tokens .* EngineConfig.max_tokens=64"):
        engine.prefill([[1] * 64])
    with pytest.raises(ValueError, match="prompt of 0 tokens"):
        engine.prefill([[]])
    assert engine.num_free == SMALL.slots


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
    engine.take_slot()
    with pytest.raises(RuntimeError, match="1 slots are still taken"):
        engine.unload()


def test_sizes_double_up_to_the_longest():
    config = EngineConfig(max_tokens=100, min_view=30, min_prompt_bucket=128)
    assert config.views == (30, 60, 100)
    assert config.prompt_buckets == (100,)
    with pytest.raises(ValueError, match=r"EngineConfig.max_tokens must be > 0, got 0"):
        EngineConfig(max_tokens=0)
