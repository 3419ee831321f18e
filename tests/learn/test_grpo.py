"""The GRPO update through the real model: masks, blocks, packing, clipping, devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.grpo_batches import (
    ADVANTAGES,
    MODEL,
    SHAPES,
    assert_same_gradients,
    batch_of,
    gradients,
    learner_of,
    setup_of,
    trajectories,
    update,
)
from helpers.tiny_models import random_params

from jaxtool.learn import grpo
from jaxtool.learn.aggregation_choices import SequenceMean, TokenMean
from jaxtool.learn.grpo_learner import place_batch
from jaxtool.learn.off_policy_choices import TokenTruncation
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import apply_gradients, make_state, row_blocks, zero_gradients
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import AxisRules, Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rollout.packing import pack


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@pytest.fixture(scope="module")
def gradients_of_trajectories(params):
    """∇ Σ log p of each trajectory's own tokens, in a row of its own."""
    setup = setup_of()

    @jax.jit
    @jax.grad
    def gradient(params, block):
        logprobs = grpo._logprobs(params, block, setup)[0]
        return jnp.where(block.loss_mask, logprobs, 0.0).sum()

    singles = [to_batch([t], PackConfig(row_tokens=16)) for t in trajectories()]
    return [gradient(params, jax.tree.map(jnp.asarray, single)) for single in singles]


@pytest.mark.parametrize("aggregation", [TokenMean(), SequenceMean()])
def test_on_policy_gradient_equals_the_slow_path(params, gradients_of_trajectories, aggregation):
    """-Σ A ∇log p by a plain loop over trajectories."""
    got, _ = gradients(params, batch_of(), setup_of(aggregation=aggregation))
    tokens = np.array([t.num_policy_tokens for t in trajectories()])
    if aggregation == TokenMean():
        weights = -ADVANTAGES / tokens.sum()
    else:
        weights = -ADVANTAGES / tokens / len(tokens)
    wanted = jax.tree.map(
        lambda *parts: sum(w * np.asarray(x) for w, x in zip(weights, parts, strict=True)),
        *gradients_of_trajectories,
    )
    for x, y in zip(jax.tree.leaves(got.grads), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-3, atol=1e-5)


def test_on_policy_loss_by_hand(params):
    """The ratio is 1, so the loss is -Σ A over policy tokens / their number; nothing is clipped."""
    tokens = np.array([t.num_policy_tokens for t in trajectories()])
    total, [sums] = gradients(params, batch_of(), setup_of())
    np.testing.assert_allclose(total.loss, -(ADVANTAGES * tokens).sum() / tokens.sum(), rtol=1e-6)
    assert float(sums["policy/clipped_fraction"]) == 0.0
    total, _ = gradients(params, batch_of(), setup_of(aggregation=SequenceMean()))
    np.testing.assert_allclose(total.loss, -ADVANTAGES.mean(), rtol=1e-5)


FULL = {"kl_coef": 0.3, "entropy_coef": 0.2, "off_policy": (TokenTruncation(cap=2.0),)}


def test_tool_and_prompt_tokens_carry_no_loss_kl_or_entropy(params):
    """Garbage in every per-token field off the mask changes neither loss nor any gradient."""
    batch, setup = batch_of(), setup_of(**FULL)
    reference = random_params(MODEL, seed=1)
    old = jnp.zeros(batch.shape) - 3.0
    old = jnp.pad(old, ((0, 8 - batch.shape[0]), (0, 0)))
    wanted, _ = gradients(params, batch, setup, reference, old)
    numbers = np.random.default_rng(0)
    garbage = {
        name: np.where(
            batch.loss_mask, getattr(batch, name), numbers.normal(0, 50, batch.shape)
        ).astype(np.float32)
        for name in ("advantages", "behaviour_logprobs")
    }
    off = np.zeros((8, batch.shape[1]), bool)
    off[: batch.shape[0]] = ~batch.loss_mask
    noisy_old = jnp.where(off, 40.0, old)
    got, _ = gradients(params, dataclasses.replace(batch, **garbage), setup, reference, noisy_old)
    np.testing.assert_array_equal(got.loss, wanted.loss)
    for x, y in zip(jax.tree.leaves(got.grads), jax.tree.leaves(wanted.grads), strict=True):
        np.testing.assert_array_equal(x, y)


def test_gradient_with_respect_to_logprobs_is_zero_exactly_off_the_mask(monkeypatch):
    batch = batch_of()
    setup = setup_of(**FULL)
    [block] = row_blocks(batch, 8, single_device())
    numbers = np.random.default_rng(1)
    shape = block.tokens.shape

    # A policy that is its log-probs and entropies.
    monkeypatch.setattr(grpo, "_logprobs", lambda params, block, setup: params)
    logprobs, entropy = (jnp.asarray(numbers.normal(-2, 1, shape), jnp.float32) for _ in "ab")
    view: Any = PolicyView(first_copy=(logprobs - 0.3, entropy))  # pyright: ignore[reportArgumentType]

    def loss(values):
        return grpo._block_loss(values, view, block, None, jnp.float32(1), setup)[0]

    for gradient in jax.grad(loss)((logprobs, entropy)):
        np.testing.assert_array_equal(gradient != 0, block.loss_mask)


@pytest.mark.parametrize("aggregation", [TokenMean(), SequenceMean()])
def test_blocks_of_any_size_give_the_update_of_one_batch(params, aggregation):
    batch = batch_of()
    assert batch.shape[0] == 4
    wanted, _ = gradients(params, batch, setup_of(aggregation=aggregation, micro_batch_rows=4))
    for rows in (1, 2) if aggregation == TokenMean() else (3,):
        got, _ = gradients(params, batch, setup_of(aggregation=aggregation, micro_batch_rows=rows))
        assert_same_gradients(got, wanted)


@pytest.mark.parametrize("aggregation", [TokenMean(), SequenceMean()])
def test_packed_equals_one_trajectory_per_row(params, aggregation):
    packed = batch_of(16)
    single = batch_of(9)
    assert len(pack([len(s) for s in SHAPES], 9)) > packed.shape[0]
    setup = setup_of(aggregation=aggregation)
    got, _ = gradients(params, packed, setup)
    wanted, _ = gradients(params, single, setup)
    assert_same_gradients(got, wanted)


@pytest.mark.parametrize(("shift", "sign"), [(-0.5, 1.0), (0.5, -1.0)])
def test_clipping_is_active_off_policy(params, shift, sign):
    """Ratio e^0.5 with A > 0 is above 1.28, e^-0.5 with A < 0 below 0.8: no gradient is left."""
    batch = batch_of()
    batch = dataclasses.replace(batch, advantages=sign * batch.loss_mask.astype(np.float32))
    setup = setup_of()
    [block] = row_blocks(batch, 8, single_device())
    old = grpo.old_logprobs(params, block, setup=setup) + shift
    total, [sums] = gradients(params, batch, setup, old=old)
    assert float(sums["policy/clipped_fraction"]) == batch.loss_mask.sum()
    assert all(not np.any(g) for g in jax.tree.leaves(total.grads))
    bound = 1.28 if sign > 0 else 0.8
    np.testing.assert_allclose(total.loss, -sign * bound, rtol=1e-5)


def test_several_updates_per_batch_take_as_many_steps(params):
    state = make_state(params, setup_of().optimizer, single_device())
    once, first = update(state, batch_of(), setup_of())
    assert int(once.step) == 1
    assert float(first["policy/clipped_fraction"]) == 0.0
    state = make_state(params, setup_of().optimizer, single_device())
    twice, metrics = update(state, batch_of(), setup_of(updates_per_batch=2))
    assert int(twice.step) == 2
    assert set(metrics) == set(first)


def test_updates_raise_the_probability_of_what_was_rewarded(params):
    batch = batch_of()
    setup = setup_of()
    [block] = row_blocks(batch, 8, single_device())
    before = grpo.old_logprobs(params, block, setup=setup)
    state = make_state(params, setup.optimizer, single_device())
    for _ in range(3):
        state, _ = update(state, batch, setup)
    change = (grpo.old_logprobs(state.params, block, setup=setup) - before) * block.advantages
    assert float(change.sum()) > 0


@pytest.mark.parametrize(
    "optimizer_embed", [None, ("fsdp", "context", "data")], ids=["plain", "zero"]
)
@pytest.mark.parametrize("micro_batch_rows", [8, 4], ids=["one_block", "two_blocks"])
def test_eight_devices_give_the_update_of_one(params, optimizer_embed, micro_batch_rows):
    batch = batch_of(row_tokens=10)
    assert 4 < batch.shape[0] <= 8
    wanted_state = make_state(params, setup_of().optimizer, single_device())
    wanted, metrics = update(wanted_state, batch, setup_of())
    rules = AxisRules(optimizer_embed=optimizer_embed)
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), rules)
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    setup = setup_of(sharding, micro_batch_rows=micro_batch_rows)
    got, sharded_metrics = update(make_state(placed, setup.optimizer, sharding), batch, setup)
    for name in ("policy/loss", "policy/grad_norm", "policy/entropy_nats"):
        np.testing.assert_allclose(sharded_metrics[name], metrics[name], rtol=1e-4)
    # Adam divides by |g|: where a gradient is all rounding, an update is 0.01 either way.
    kernel = lambda state: state.params["layers"]["mlp"]["gate"]["kernel"]  # noqa: E731
    assert np.mean(np.abs(np.asarray(kernel(got)) - np.asarray(kernel(wanted))) < 1e-5) > 0.999
    # Moments are cut like their parameters, before and after an update, or over replicas as well.
    moments = [x for x in jax.tree.leaves(got.opt_state) if x.shape == kernel(got).shape]
    assert len(moments) >= 2
    [axes] = {param_axes(got.params)["layers"]["mlp"]["gate"]["kernel"]}
    for x in moments[:2]:
        assert x.sharding.is_equivalent_to(sharding.of_state.named(*axes), x.ndim)
    assert kernel(got).sharding.is_equivalent_to(sharding.named(*axes), 3)
    assert not kernel(got).sharding.is_fully_replicated


def test_gradients_are_cut_like_their_parameters_before_and_after_a_block(params):
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    zeros = zero_gradients(placed, sharding)
    summed, _ = gradients(placed, batch_of(), setup_of(sharding))
    for total in (zeros, summed):
        for x, y in zip(jax.tree.leaves(total.grads), jax.tree.leaves(placed), strict=True):
            assert x.sharding.is_equivalent_to(y.sharding, x.ndim)


def test_blocks_that_the_mesh_does_not_divide_are_refused(params):
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    with pytest.raises(ValueError, match="micro_batch_rows=2 does not divide over data x fsdp = 4"):
        next(row_blocks(batch_of(), 2, sharding))


def test_measuring_gives_the_metrics_of_the_update(params):
    state = make_state(params, setup_of().optimizer, single_device())
    setup = setup_of(micro_batch_rows=2)
    measured = learner_of(setup).measure(state, place_batch(batch_of(), setup))
    _, updated = update(state, batch_of(), setup)
    assert set(updated) - set(measured) == {"policy/grad_norm", "policy/skipped_updates"}
    for name, value in measured.items():
        np.testing.assert_array_equal(value, updated[name])


def test_all_blocks_of_all_updates_run_one_program(params):
    """With parameters laid out as a run's are: neither a first block nor a second update compiles anew."""
    setup = setup_of(micro_batch_rows=2, lm_head_chunk=7)
    placed = jax.device_put(params, setup.sharding.tree(param_axes(params)))
    state = make_state(placed, setup.optimizer, setup.sharding)
    before = grpo.grpo_block._cache_size(), apply_gradients._cache_size()
    for _ in range(2):
        state, _ = update(state, batch_of(), setup)
    assert batch_of().shape[0] > 2
    after = grpo.grpo_block._cache_size(), apply_gradients._cache_size()
    assert after == (before[0] + 1, before[1] + 1)
