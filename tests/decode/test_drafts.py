"""Windows with drafts give the tokens of ordinary ones, whatever was guessed, and say what became of guesses."""

import dataclasses
import random
from typing import Any

import jax
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

from jaxtool.decode.draft_check import windows_agree
from jaxtool.decode.draft_window import DraftLog
from jaxtool.decode.drafts_config import DraftsConfig
from jaxtool.decode.program_table import ProgramTable
from jaxtool.decode.sampling import Sampling

MODEL = dataclasses.replace(FAMILIES["qwen3"], num_layers=1)
ALWAYS = DraftsConfig(columns=(4,), rounding="same_program", least_match=1, source_tokens=64)
WITH_DRAFTS = dataclasses.replace(SMALL, window_steps=8, drafts=ALWAYS)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def plain(params):
    return make_engine(MODEL, params)


@pytest.fixture(scope="module")
def drafting(params):
    return make_engine(MODEL, params, WITH_DRAFTS)


def guessable(seed: int, count: int = 16):
    """Jobs in pairs with the same prompt and random stream: the later of two can guess all of the earlier."""
    jobs = random_jobs(count, outputs=(2, 9, 4), seed=seed)
    return [dataclasses.replace(job, name=f"{job.name} {seed}") for job in jobs]


@pytest.mark.parametrize("seed", range(2))
def test_drafts_change_no_token(plain, drafting, seed):
    jobs = guessable(seed)
    waits = random.Random(seed)
    rows = run_jobs(drafting, jobs, latency=lambda: waits.randrange(3))
    assert_same_rows(rows, run_jobs(plain, jobs))
    assert drafting.counts.reprefilled_tokens == 0
    assert drafting.num_free == SMALL.decode_rows


def test_what_was_said_before_is_guessed(params, plain):
    """The same problems a second time: the row's own earlier answer is among the texts."""
    engine = make_engine(MODEL, params, WITH_DRAFTS)
    jobs = guessable(5)
    first = run_jobs(engine, jobs)
    before = dataclasses.replace(engine.drafting.counts)
    again = run_jobs(engine, jobs)
    assert_same_rows(again, first)
    counts = engine.drafting.counts
    made, passes = counts.tokens - before.tokens, counts.passes - before.passes
    assert counts.accepted - before.accepted > 0.5 * (counts.guessed - before.guessed)
    assert made > 2 * passes


SAMPLINGS = {
    "greedy": Sampling(temperature=0.0),
    "truncated": Sampling(top_k=9, top_p=0.8),
}


@pytest.mark.parametrize("name", SAMPLINGS)
def test_drafts_change_no_token_in_other_sampling_modes(plain, drafting, name):
    jobs = guessable(6, 10)
    sampling = SAMPLINGS[name]
    wanted = run_jobs(plain, jobs, sampling=sampling)
    assert_same_rows(run_jobs(drafting, jobs, sampling=sampling), wanted)
    before = drafting.drafting.counts.accepted
    assert_same_rows(run_jobs(drafting, jobs, sampling=sampling), wanted)  # guessed
    assert drafting.drafting.counts.accepted > before + 20


def test_log_probs_are_those_of_the_training_forward_pass(params, drafting):
    jobs = guessable(7)
    run_jobs(drafting, jobs)
    rows = run_jobs(drafting, jobs)
    assert_teacher_forced(params, rows.values(), model=MODEL)
    assert_kept_is_prefilled_again(drafting, 9, seed=7)


OPTIONS = {
    "more cache rows than decode rows": {"cache_rows": 16, "decode_rows": 4},
    "narrow windows": {"min_decode_rows": 4},
    "windows that end early": {"refill_below": 0.75},
}


@pytest.mark.parametrize("option", OPTIONS)
def test_drafts_change_no_token_with_other_options(params, plain, option):
    engine = make_engine(MODEL, params, dataclasses.replace(WITH_DRAFTS, **OPTIONS[option]))
    jobs = guessable(8, 20)
    waits = random.Random(4)
    for _ in range(2):
        rows = run_jobs(engine, jobs, latency=lambda: waits.randrange(4))
        assert_same_rows(rows, run_jobs(plain, jobs))
    assert engine.drafting.counts.accepted > 50


@pytest.mark.parametrize("rounding", ["exact", "any"])
def test_windows_with_and_without_drafts_take_turns(params, plain, rounding):
    """On random rows drafts do not pay; on known ones they do. Both kinds of window run, tokens stay."""
    drafts = dataclasses.replace(ALWAYS, rounding=rounding, retry_windows=3)
    engine = make_engine(MODEL, params, dataclasses.replace(WITH_DRAFTS, drafts=drafts))
    jobs = guessable(9)
    wanted = run_jobs(plain, jobs)
    for _ in range(3):
        assert_same_rows(run_jobs(engine, jobs), wanted)
    counts = engine.drafting.counts
    assert counts.windows < engine.counts.windows
    # Where this processor rounds wide products otherwise, exact drafts are refused.
    assert counts.windows > 0 or (rounding == "exact" and counts.refused_programs == 1)


WRONG = {
    "nothing": lambda cache, log: (cache, log),
    "a log-prob": lambda cache, log: (
        cache,
        dataclasses.replace(log, logprobs=np.nextafter(log.logprobs, 0)),
    ),
    "a token": lambda cache, log: (cache, dataclasses.replace(log, tokens=log.tokens + 1)),
    "a key": lambda cache, log: (
        (*cache[:-1], cache[-1]._replace(k=np.nextafter(np.asarray(cache[-1].k), 0))),
        log,
    ),
    "every guess": lambda cache, log: (cache, log),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_check_sees_another_bit(params, monkeypatch, wrong):
    """The ordinary window in the place of the one with drafts, once as it is and once with one thing changed."""
    engine = make_engine(MODEL, params, dataclasses.replace(WITH_DRAFTS, window_steps=16))
    table = dataclasses.replace(engine._table, params=engine._params, is_stop=engine._is_stop)
    accepted = np.full(SMALL.decode_rows, 0 if wrong == "every guess" else 8)

    def in_its_place(table, width, view, mode, columns):
        def program(params, cache, rows, drafts, *rest):
            assert (drafts.corpus >= 0).sum() > SMALL.decode_rows * columns
            cache, after, log = table.window(width, view, mode)(params, cache, rows, *rest)
            cache, log = WRONG[wrong](cache, jax.device_get(log))
            zeros = np.zeros_like(accepted)
            return (
                cache,
                after,
                log,
                DraftLog(
                    passes=zeros, with_guess=zeros, guessed=zeros, accepted=accepted, wrong=zeros
                ),
            )

        return program

    monkeypatch.setattr(ProgramTable, "draft_window", in_its_place)
    assert windows_agree(table, (8, 64, "plain"), 4) == (wrong == "nothing")


def test_an_engine_with_drafts_compiled_ahead_compiles_nothing_later(params):
    """The programs of the checks are among those."""
    drafts = DraftsConfig(columns=(3,), source_tokens=64, retry_windows=2)
    config = dataclasses.replace(SMALL, window_steps=6, min_view=64, drafts=drafts)
    engine = make_engine(MODEL, params, config)
    engine.compile([Sampling()], longest_prompt=16)
    with compilations() as compiled:
        run_jobs(engine, guessable(10, 10))
    assert compiled == []
    assert engine.counts.late_programs == 0


def test_tool_outputs_ride_several_tokens_a_pass(params):
    """Six forced tokens and one that is sampled: two passes of four columns, and none without guesses more."""
    engine = make_engine(MODEL, params, WITH_DRAFTS, stops=range(12))
    [job] = random_jobs(1, outputs=(6,), seed=1)
    run_jobs(engine, [dataclasses.replace(job, limit=40)])
    passes = engine.drafting.counts.passes
    tokens = engine.drafting.counts.tokens
    assert tokens >= 7
    assert passes <= tokens - 4


def test_unfit_settings_are_refused():
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"columns": ()}, "columns"),
        ({"columns": (1, 2)}, ">= 2"),
        ({"columns": (4, 2)}, "rise"),
        ({"rounding": "sometimes"}, "exact, same_program, any"),
        ({"source_tokens": 8}, ">= 64"),
        ({"least_match": 4, "most_match": 3}, "at least"),
    ]
    for fields, said in wrong:
        with pytest.raises(ValueError, match=said):
            DraftsConfig(**fields)
    with pytest.raises(ValueError, match=r"window_steps=2"):
        dataclasses.replace(SMALL, window_steps=2, drafts=ALWAYS)
