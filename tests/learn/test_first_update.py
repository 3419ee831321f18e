"""The first update of a batch needs no pass for log π_old: they are its own log-probs, and the ratio is exactly 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.compilations import compilations
from helpers.grpo_batches import MODEL, batch_of, learner_of, setup_of
from helpers.tiny_models import random_params

from jaxtool.learn import grpo, grpo_learner
from jaxtool.learn.grpo import OldLogprobs
from jaxtool.learn.grpo_learner import place_batch
from jaxtool.learn.off_policy_choices import TokenTruncation
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.programs import policy_programs
from jaxtool.learn.state import make_state, row_blocks, zero_gradients
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


@dataclasses.dataclass(frozen=True)
class CountsOtherRatios:
    """-ratio · A; as "clipped" it counts tokens whose ratio is not 1, bit for bit."""

    def __call__(self, logprobs, old, block, num_trajectories):
        del num_trajectories
        ratio = jnp.exp(logprobs - old)
        return -ratio * block.advantages, ratio != 1.0


def noisy_batch():
    """Of a sampler that is off by about 0.3 nats."""
    batch = batch_of()
    [block] = row_blocks(batch, 8, single_device())
    exact = grpo.old_logprobs(random_params(MODEL), block, setup=setup_of())[: batch.shape[0]]
    noise = np.random.default_rng(0).normal(0, 0.3, batch.shape).astype(np.float32)
    sampled = np.where(batch.loss_mask, exact + noise, np.float32(0))
    return dataclasses.replace(batch, behaviour_logprobs=sampled)


def updated(params, batch, setup, view=None):
    state = make_state(params, setup.optimizer, setup.sharding)
    return learner_of(setup, view).update(state, place_batch(batch, setup))


def with_a_pass_for_all(monkeypatch):
    """log π_old of the first update come from the pass, as those of the others."""

    def block(total, params, view, block, old, count, *, setup):
        if old is not None and old.is_own:
            values = grpo.old_logprobs(view.full(params), block, setup=setup)
            old = OldLogprobs(values=values, is_own=np.bool_(False))
        return grpo.grpo_block(total, params, view, block, old, count, setup=setup)

    replaced_run(monkeypatch, "gradient_block", block)


def replaced_run(monkeypatch, name, run):
    def table(setup):
        programs = policy_programs(setup)
        call = lambda *arguments: run(*arguments, setup=setup)  # noqa: E731
        program = dataclasses.replace(getattr(programs, name), run=call)
        return dataclasses.replace(programs, **{name: program})

    monkeypatch.setattr(grpo_learner, "policy_programs", table)


def passes_of(monkeypatch):
    """Numbers of tokens with a loss of the blocks that the pass has seen, as it sees them."""
    seen = []

    def run(policy, block, *, setup):
        seen.append(int(block.loss_mask.sum()))
        return grpo.old_logprobs(policy, block, setup=setup)

    replaced_run(monkeypatch, "old_logprobs", run)
    return seen


@pytest.mark.parametrize("updates", [2, 3])
def test_updates_are_those_with_a_pass_for_every_one(params, monkeypatch, updates):
    """With weights against the sampler, which read log π_old as well."""
    off_policy = (TokenTruncation(cap=1.2),)
    setup = setup_of(updates_per_batch=updates, micro_batch_rows=2, off_policy=off_policy)
    got, metrics = updated(params, noisy_batch(), setup)
    assert 0.5 < float(metrics["policy/correction_weight_mean"]) < 1.2
    with_a_pass_for_all(monkeypatch)
    wanted, wanted_metrics = updated(params, noisy_batch(), setup)
    assert int(got.step) == int(wanted.step) == updates
    assert set(metrics) == set(wanted_metrics)
    for name, value in metrics.items():
        np.testing.assert_allclose(value, wanted_metrics[name], rtol=1e-5, atol=1e-6, err_msg=name)
    start = jax.tree.leaves(params)
    for x, y, z in zip(
        jax.tree.leaves(got.params), jax.tree.leaves(wanted.params), start, strict=True
    ):
        # Adam divides by |g|: where a gradient is all rounding, an update is 0.01 either way.
        assert np.mean(np.abs(np.asarray(x) - np.asarray(y)) < 1e-5) > 0.999
        assert np.any(np.asarray(x) != np.asarray(z))


def test_the_first_ratio_is_exactly_one(params):
    setup = setup_of(updates_per_batch=2, micro_batch_rows=2, loss=CountsOtherRatios())
    _, metrics = updated(params, noisy_batch(), setup)
    assert float(metrics["policy/clipped_fraction"]) == 0.0
    # The measure sees other ratios: those of a block whose π_old is given.
    placed = place_batch(noisy_batch(), setup)
    [block, *_] = placed.mini_batches[0].blocks
    total, count = zero_gradients(params, setup.sharding), np.float32(1)
    for is_own in (False, True):
        old = OldLogprobs(values=block.behaviour_logprobs, is_own=np.bool_(is_own))
        total, sums = grpo.grpo_block(total, params, PolicyView(), block, old, count, setup=setup)
        assert (float(sums["policy/clipped_fraction"]) == 0.0) == is_own


def test_values_that_are_not_log_pi_old_are_not_read(params):
    """Not even infinities: the same bits as from other values, and the gradient is finite."""
    setup = setup_of(off_policy=(TokenTruncation(),))
    [block] = row_blocks(noisy_batch(), 8, single_device())
    results = []
    for value in (-1.0, np.inf, np.nan):
        old = OldLogprobs(values=jnp.full(block.tokens.shape, value), is_own=np.bool_(True))
        total = zero_gradients(params, setup.sharding)
        results.append(
            grpo.grpo_block(total, params, PolicyView(), block, old, np.float32(7), setup=setup)
        )
    for result in results[1:]:
        for x, y in zip(jax.tree.leaves(result), jax.tree.leaves(results[0]), strict=True):
            np.testing.assert_array_equal(x, y)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(results[0]))


def test_the_pass_reads_all_mini_batches_but_the_first(params, monkeypatch):
    seen, batch = passes_of(monkeypatch), noisy_batch()
    setup = setup_of(updates_per_batch=3, micro_batch_rows=8)
    updated(params, batch, setup)
    assert seen == [int(batch.loss_mask[part::3].sum()) for part in (1, 2)]


def test_the_first_mini_batch_with_a_token_is_the_first_update(params, monkeypatch):
    """Mini-batch 0 has no token with a loss, so the policy has not moved before mini-batch 1."""
    seen, batch = passes_of(monkeypatch), noisy_batch()
    mask = batch.loss_mask.copy()
    mask[0::3] = False
    batch = dataclasses.replace(batch, loss_mask=mask)
    setup = setup_of(updates_per_batch=3, micro_batch_rows=8, loss=CountsOtherRatios())
    state, metrics = updated(params, batch, setup)
    assert int(state.step) == 2
    assert float(metrics["policy/clipped_fraction"]) == 0.0
    assert seen == [int(mask[2::3].sum())]


@pytest.mark.parametrize(
    "mesh",
    [MeshConfig(), MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(fsdp=2, context=2, tensor=2)],
    ids=["one_device", "eight", "context"],
)
def test_first_and_later_updates_run_one_program(params, mesh):
    """The values that are not read have the layout of those that are, so nothing is compiled for them."""
    num = 8 if mesh.tensor == 2 else 1
    sharding = Sharding(make_mesh(mesh, jax.devices()[:num]))
    setup = setup_of(sharding, updates_per_batch=2, micro_batch_rows=4, lm_head_chunk=5)
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    batch = place_batch(batch_of(row_tokens=10), setup)
    [block, *_] = batch.mini_batches[1].blocks
    count, view = np.float32(1), PolicyView()
    values = grpo.old_logprobs(placed, block.without_targets(), setup=setup)
    old = OldLogprobs(values=values, is_own=np.bool_(False))
    total = zero_gradients(placed, sharding)
    grpo.grpo_block(total, placed, view, block, old, count, setup=setup)
    old = OldLogprobs(values=block.behaviour_logprobs, is_own=np.bool_(True))
    total = zero_gradients(placed, sharding)
    with compilations() as compiled:
        grpo.grpo_block(total, placed, view, block, old, count, setup=setup)
    assert not compiled
