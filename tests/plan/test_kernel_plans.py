"""Kernels of a plan: how many steps their grids have, and how long those take. Numbers by hand."""

import jax
import jax.numpy as jnp
import pytest

from jaxtool.model.kv_cache import LayerCache
from jaxtool.model.pallas_attention import KERNEL, flash_cached_attention
from jaxtool.model.splash_attention import splash_attention
from jaxtool.plan.bundles import StepCycles
from jaxtool.plan.chips import CHIPS
from jaxtool.plan.flops import KernelCall, count_flops, kernel_calls
from jaxtool.plan.kernels import (
    KernelSteps,
    PackedRow,
    cache_steps,
    causal_steps,
    kernel_s,
    plan_kernels,
)

V6E, V5P = CHIPS["v6e"], CHIPS["v5p"]
CYCLES = StepCycles(active=900, skipped=200)
SHAPE = {"positions": 18432, "kv_heads": 2, "group": 5, "head_dim": 128}


def test_steps_over_a_cache_by_hand():
    """24 rows of 5632 tokens, int8: 5632 / 2048 + 1/2 = 3.25 blocks a row, 2 x 2 x (128 + 4) bytes a token."""
    steps = cache_steps(
        rows=24, columns=1, start=5632, value_bytes=1, scale_bytes=4, is_anywhere=True, **SHAPE
    )
    assert (steps.active, steps.skipped) == (24 * 3.25, 3.25 / 2)
    assert steps.read_bytes == 24 * 3.25 * 2048 * 528


def test_steps_of_a_prompt_by_hand():
    """1024 tokens x 1 query head in 2 blocks of 512 queries and 2 of 512 positions: 1 + 2 steps."""
    steps = cache_steps(
        rows=2,
        columns=1024,
        start=0,
        positions=1024,
        kv_heads=1,
        group=1,
        head_dim=128,
        value_bytes=2,
        scale_bytes=0,
        is_anywhere=False,
    )
    assert steps.active == 2 * (1 + 2)


def test_a_causal_grid_skips_what_is_above_the_diagonal():
    """4 x 4 blocks, 3 heads: 10 of 16 work."""
    assert causal_steps((3, 4, 4)) == KernelSteps(active=30, skipped=18)
    assert causal_steps((3, 1, 1)) == KernelSteps(active=3, skipped=0)


def test_a_row_of_several_trajectories_skips_what_they_do_not_share():
    """2 trajectories of 4 of 9 blocks, 1 of padding: 2 x 15 + 3 pairs of 45 work; a whole row stays causal."""
    row = PackedRow(count=2, mean=4 / 9, square=(4 / 9) ** 2)
    steps = causal_steps((2, 9, 9), row)
    assert steps.active == pytest.approx(2 * 33)
    assert steps.active + steps.skipped == pytest.approx(2 * 81)
    assert causal_steps((9, 9), PackedRow(count=1, mean=1.0, square=1.0)).active == 45


def test_a_kernel_takes_the_longer_of_its_cycles_and_its_reads():
    """100 x 900 + 50 x 200 cycles are 100 000: 57 µs at 1.75 GHz, a half of it on two cores."""
    steps = KernelSteps(active=100, skipped=50, read_bytes=1.64e6)
    assert kernel_s(steps, CYCLES, V6E) == pytest.approx(1e5 / 1.75e9)
    assert kernel_s(steps, CYCLES, V5P) == pytest.approx(1e5 / 1.75e9 / 2)
    much = KernelSteps(active=100, skipped=50, read_bytes=1.64e9)
    assert kernel_s(much, CYCLES, V6E) == pytest.approx(1e-3)
    assert kernel_s(steps, None, V6E) == pytest.approx(1e-6)


def test_calls_are_matched_to_their_cycles_and_steps():
    calls = [
        KernelCall(name=KERNEL, grid=(2, None), count=64),
        KernelCall(name="splash", grid=(2, 4, 4), count=3),
    ]
    over_cache = KernelSteps(active=100)
    cache, splash = plan_kernels(calls, {KERNEL: CYCLES}, over_cache, V6E)
    assert (cache.calls, cache.steps, cache.cycles) == (64, over_cache, CYCLES)
    assert cache.seconds == pytest.approx(64 * 100 * 900 / 1.75e9)
    assert (splash.steps.active, splash.cycles, splash.seconds) == (20, None, 0.0)
    [unknown] = plan_kernels(calls[:1], {KERNEL: CYCLES}, over_cache, CHIPS["tpu7x"])
    assert unknown.cycles is None


def test_kernels_of_a_trace_are_found_in_loops_and_count_no_flops():
    q = jax.ShapeDtypeStruct((2, 1, 4, 128), jnp.bfloat16)
    keys = jax.ShapeDtypeStruct((2, 2, 256, 128), jnp.bfloat16)
    at = jax.ShapeDtypeStruct((2, 1), jnp.int32)

    def steps(q, k, v, at):
        def step(q, _):
            return flash_cached_attention(q, LayerCache(k, v), at), None

        q = jax.lax.scan(step, q, None, length=5)[0]
        return jax.lax.while_loop(
            lambda q: q[0, 0, 0, 0] < 1,
            lambda q: flash_cached_attention(q, LayerCache(k, v), at),
            q,
        )

    traced = jax.make_jaxpr(steps)(q, keys, keys, at)
    [call] = kernel_calls(traced, while_trips=7)
    assert (call.name, call.grid, call.count) == (KERNEL, (2, None), 12)
    assert count_flops(traced, while_trips=7) == 0


def test_kernels_of_a_gradient():
    """Forward, and backward to queries and to keys; 2 rows, each 2 key heads x 2 of a group x (2 x 2) blocks."""
    q = jax.ShapeDtypeStruct((2, 2048, 4, 128), jnp.bfloat16)
    k = jax.ShapeDtypeStruct((2, 2048, 2, 128), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((2, 2048), jnp.int32)

    def total(q, k, v, ids):
        return jnp.sum(splash_attention(q, k, v, ids).astype(jnp.float32))

    calls = kernel_calls(jax.make_jaxpr(jax.grad(total, argnums=(0, 1, 2)))(q, k, k, ids))
    assert [call.name.split("_")[2] for call in calls] == ["fwd", "dkv", "dq"]
    assert {call.grid for call in calls} == {(2, 2, 2, 2)}
    assert {call.count for call in calls} == {2}  # row by row
