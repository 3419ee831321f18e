"""The worked examples in the decoder's comments, with the numbers that stand there."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from helpers.tiny_models import FAMILIES, VOCAB

from jaxtool.decode import memory, programs
from jaxtool.decode.config import EngineConfig, EngineCounts
from jaxtool.decode.in_flight import InFlightWindow, apply_window, choose_rows
from jaxtool.decode.programs import Window, idle_rows
from jaxtool.parallel.axis_rules import single_device

MODEL = FAMILIES["qwen3"]


def paused_rows():
    """Row 0 has prefilled a prompt; row 1 has its tool's output before it."""
    rows = idle_rows(2, 2)
    rows.lengths[:] = [2, 4]
    rows.pending[:] = [7, 9]
    rows.is_running[:] = True
    rows.max_lengths[:] = 20
    rows.forced[1] = [30, 31]
    rows.forced_count[:] = [0, 2]
    return rows


def stops():
    return jnp.arange(VOCAB) == 3


def test_a_step_takes_the_forced_token_or_else_the_drawn_one():
    rows, is_sampled = programs.advance(paused_rows(), jnp.array([8, 12]), stops())
    assert rows.lengths.tolist() == [3, 5]
    assert rows.pending.tolist() == [8, 30]
    assert rows.forced_next.tolist() == [0, 1]
    assert is_sampled.tolist() == [True, False]
    assert rows.is_running.tolist() == [True, True]


def test_a_window_of_four_steps_runs_what_its_example_says(monkeypatch):
    drawn = np.zeros((2, 16), np.int32)  # by row and position
    drawn[0, [3, 4]] = 8, 3
    drawn[1, [7, 8]] = 14, 15
    table = jnp.asarray(drawn)

    def draw(scores, keys, positions, sampling, mode, sharding):
        tokens = table[jnp.arange(2), positions]
        return tokens, tokens.astype(jnp.float32)

    def forward(params, config, tokens, positions, cache, *, view, sharding, table):
        # The "cache" is the token that ran at each position.
        return tokens[..., None], (cache[0].at[jnp.arange(2), positions[:, 0]].set(tokens[:, 0]),)

    monkeypatch.setattr(programs, "sample_over_devices", draw)
    monkeypatch.setattr(programs, "cached_hidden_states", forward)
    monkeypatch.setattr(programs, "logits", lambda params, config, hidden: hidden)
    empty: Any = (jnp.zeros((2, 12), jnp.int32),)
    arguments = (MODEL, "plain", 4, 12, single_device())
    least = jnp.int32(1)
    (cache,), rows, log = programs.decode_loop({}, empty, paused_rows(), least, stops(), *arguments)
    ran = np.asarray(cache)
    assert rows.lengths.tolist() == [4, 8]
    assert rows.pending.tolist() == [3, 15]
    assert rows.is_running.tolist() == [False, True]
    assert np.asarray(log.is_sampled).tolist() == [
        [True, False],
        [True, False],
        [False, True],
        [False, True],
    ]
    assert np.asarray(log.tokens)[np.asarray(log.is_sampled)].tolist() == [8, 3, 14, 15]
    assert ran[0, :5].tolist() == [
        0,
        0,
        7,
        8,
        3,
    ]  # the idle row ran its pending token, and no other
    assert ran[1, :8].tolist() == [0, 0, 0, 0, 9, 30, 31, 14]


def test_three_running_rows_of_six_take_a_window_of_four_and_come_back():
    config = EngineConfig(
        decode_rows=4, cache_rows=6, min_decode_rows=2, window_steps=8, min_view=32, max_tokens=64
    )
    rows = idle_rows(6, 2)
    rows.lengths[:] = [20, 0, 10, 0, 0, 30]
    rows.is_running[[0, 2, 5]] = True
    ages = np.array([7, 1, 3, 2, 0, 5])
    chosen, running, view = choose_rows(rows, ages, config)
    assert chosen.tolist() == [0, 2, 5, 6]
    assert running.tolist() == [2, 5, 0]
    assert view == 64

    before = rows.take(chosen)
    after = dataclasses.replace(before, lengths=before.lengths + np.array([2, 2, 2, 0]))
    log = Window(
        tokens=np.array([[11, 12, 13, 0], [14, 15, 16, 0], [99, 99, 99, 99]]),
        logprobs=np.zeros((3, 4), np.float32),
        is_sampled=np.array([[True, True, True, False]] * 3),
        steps=np.int32(2),
    )
    window = InFlightWindow(chosen=chosen, lengths=before.lengths, rows=after, log=log)
    counts = EngineCounts()
    wide = apply_window(window, after, log, rows, counts)
    assert wide.tokens.tolist() == [[11, 0, 12, 0, 0, 13], [14, 0, 15, 0, 0, 16]]
    assert rows.lengths.tolist() == [22, 0, 12, 0, 0, 32]
    assert (counts.row_steps, counts.useful_row_steps, counts.sampled_tokens) == (8, 6, 6)


@pytest.mark.parametrize(("most", "planned"), [(256, 16), (15, 12)])
def test_memory_is_planned_as_its_example_says(monkeypatch, most, planned):
    """10 GiB, weights of 3, prefill calls of 1.5 and rows of 0.25 in 4 parts."""
    config = EngineConfig(decode_rows=0, memory_gib=10.0, most_decode_rows=most, prefill_rows=4)
    logits = 4 * 4 * VOCAB
    row = 2**28 - logits

    def cache_bytes(model, rows, positions):
        # The longest prompt is in a shorter bucket than a row.
        return row if positions == config.max_tokens else int(1.5 * 2**30) // 8

    monkeypatch.setattr(memory, "cache_bytes", cache_bytes)
    monkeypatch.setattr(memory, "check_rows", lambda config, sharding: 4)
    weights = 3 * 2**30 // 4
    monkeypatch.setattr(memory, "publish", lambda *_: jnp.zeros(weights // 4, jnp.float32))
    plan = memory.plan_memory(MODEL, config, single_device(), longest_prompt=17)
    assert (plan.weights, plan.fixed, plan.per_row) == (3 * 2**30, int(1.5 * 2**30), 2**28)
    assert plan.config.decode_rows == planned
