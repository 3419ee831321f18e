"""Updates of an adapter: only it moves, the frozen policy is the reference, and no second tree is held."""

import dataclasses
import gc

import jax
import numpy as np
import pytest
from helpers.ledgers import random_ledgers
from helpers.targets import with_advantages, with_rewards
from helpers.tiny_models import VOCAB, random_adapter, random_params

from jaxtool.core import rng
from jaxtool.learn import grpo, sft
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.learner import make_learner
from jaxtool.learn.optimizer import Muon, OptimizerConfig
from jaxtool.learn.policy_view import PolicyView, split_policy
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.reward_kl import token_penalties
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.learn.state import make_state, row_blocks, zero_gradients
from jaxtool.model.config import tiny
from jaxtool.model.lora import FrozenPolicy, LoraConfig, merged
from jaxtool.model.param_axes import param_axes
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rollout.batching import PackConfig, to_batch

MODEL = dataclasses.replace(tiny(VOCAB), num_layers=1, scans_layers=False, ties_embeddings=False)
LORA = LoraConfig(rank=2, alpha=4.0)
SHAPES = ("QQpppttpp", "QQppp", "QQpppppp", "Qppttp")
REWARDS = np.array([1.0, -1.0, 0.5, 2.0], np.float32)
SETUP = LearnerSetup(
    model=MODEL,
    grpo=GrpoConfig(micro_batch_rows=4, lm_head_chunk=8, kl_coef=0.3),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    sharding=single_device(),
    temperature=1.0,
    num_trajectories=len(SHAPES),
)
CRITIC = CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-2), warmup_batches=0)


@pytest.fixture(scope="module")
def frozen():
    return FrozenPolicy(params=random_params(MODEL), config=LORA)


@pytest.fixture(scope="module")
def adapter():
    return random_adapter(MODEL, LORA)


def batch_of():
    packed = to_batch(random_ledgers(SHAPES), PackConfig(row_tokens=16))
    return with_rewards(with_advantages(packed, REWARDS), REWARDS)


def update(state, setup, frozen):
    learner = GrpoLearner(setup=setup, view=PolicyView(frozen=frozen))
    return learner.update(state, place_batch(batch_of(), setup))


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_close(one, other, **tolerance) -> None:
    for x, y in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


def test_kl_against_the_frozen_policy_equals_an_explicit_reference_copy(frozen, adapter):
    """Loss, metrics and gradient; and the gradient is that of a whole update through A and B."""
    [block] = row_blocks(batch_of(), 4, single_device())
    count = np.float32(7)

    def block_of(params, view):
        total = zero_gradients(params, single_device())
        return grpo.grpo_block(total, params, view, block, None, count, setup=SETUP)

    got, sums = block_of(adapter, PolicyView(frozen=frozen))
    assert float(sums["policy/kl_k3_nats"]) > 0.01
    copy = jax.tree.map(lambda x: x + 0, frozen.params)
    whole = merged(frozen.with_adapter(adapter), single_device())
    wanted, wanted_sums = block_of(whole, PolicyView(first_copy=copy))
    np.testing.assert_allclose(got.loss, wanted.loss, rtol=1e-5)
    assert set(sums) == set(wanted_sums)
    assert_close(sums, wanted_sums, rtol=1e-4, atol=1e-6)
    pair = adapter["layers"]["mlp"]["down"]
    kernel = wanted.grads["layers"]["mlp"]["down"]["kernel"]
    down = got.grads["layers"]["mlp"]["down"]
    assert_close(
        (down["lora_a"], down["lora_b"]),
        (
            2.0 * np.einsum("lfd,lrd->lfr", kernel, pair["lora_b"]),
            2.0 * np.einsum("lfd,lfr->lrd", kernel, pair["lora_a"]),
        ),
        rtol=1e-3,
        atol=1e-6,
    )


def test_penalties_in_the_reward_use_the_frozen_policy_too(frozen, adapter):
    setup = dataclasses.replace(SETUP, grpo=GrpoConfig(micro_batch_rows=4, reward_kl_coef=0.1))
    placed, adapted = place_batch(batch_of(), setup), PolicyView(frozen=frozen)
    got = token_penalties(adapter, adapted, placed, setup)
    whole = merged(adapted.full(adapter), single_device())
    wanted = token_penalties(whole, PolicyView(first_copy=frozen.params), placed, setup)
    assert np.abs(wanted).max() > 1e-3
    np.testing.assert_allclose(got, wanted, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("critic", [None, CRITIC], ids=["grpo", "ppo"])
def test_only_adapters_move_and_no_second_tree_is_held(critic):
    params = random_params(MODEL)
    held = kernels_alive()
    trained, view = split_policy(params, MODEL, LORA, rng.key(0, "lora"), single_device())
    assert view.frozen is not None
    before, pointers = leaves(params), [x.unsafe_buffer_pointer() for x in jax.tree.leaves(params)]
    learner = make_learner(SETUP, critic, view)
    state = learner.start(trained)
    del params
    # What the learner holds besides the frozen policy is the size of adapters and their moments.
    small = sum(x.size for x in jax.tree.leaves(trained))
    heads = 0 if critic is None else MODEL.d_model
    towers = 1 if critic is None else 2
    numbers = sum(x.size for x in jax.tree.leaves(state) if x.ndim)
    assert numbers == 3 * (towers * small + heads)
    first = leaves(learner.trained(state))
    kls = []
    for _ in range(3):
        state, metrics = learner.update(state, place_batch(batch_of(), SETUP))
        kls.append(float(metrics["policy/kl_k3_nats"]))
    assert kls[0] == pytest.approx(0.0, abs=1e-6)
    assert kls[2] > 1e-4
    for x, y in zip(leaves(learner.trained(state)), first, strict=True):
        assert np.any(x != y)
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(view.frozen.params)] == pointers
    for x, y in zip(leaves(view.frozen.params), before, strict=True):
        np.testing.assert_array_equal(x, y)
    assert kernels_alive() <= held


def kernels_alive() -> set[int]:
    """Addresses of the arrays that have the shape of the MLP's gate, all layers."""
    gc.collect()
    alive = [x for x in jax.live_arrays() if x.shape == (1, MODEL.d_model, MODEL.d_ff)]
    return {x.unsafe_buffer_pointer() for x in alive if not x.is_deleted()}


def test_mini_batches_and_cold_start_move_the_adapter(frozen, adapter):
    setup = dataclasses.replace(
        SETUP, grpo=dataclasses.replace(SETUP.grpo, updates_per_batch=2, micro_batch_rows=2)
    )
    state = make_state(adapter, setup.optimizer, single_device())
    after, _ = update(state, setup, frozen)
    assert int(after.step) == 2
    sft_setup = sft.SftSetup(
        model=MODEL,
        sft=sft.SftConfig(micro_batch_rows=2, lm_head_chunk=8),
        optimizer=OptimizerConfig(learning_rate=3e-2),
        sharding=single_device(),
    )
    learner = SftLearner(setup=sft_setup, view=PolicyView(frozen=frozen))
    state, curve = learner.start(adapter), []
    for _ in range(12):
        state, metrics = learner.update(state, batch_of().without_targets())
        curve.append(float(metrics["sft/loss_nats"]))
    assert curve[-1] < 0.7 * curve[0]


def test_eight_devices_give_the_update_of_one_and_cut_adapters(frozen, adapter):
    state = make_state(adapter, SETUP.optimizer, single_device())
    _, wanted = update(state, SETUP, frozen)
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))

    def placed(tree):
        return jax.device_put(tree, sharding.tree(param_axes(tree)))

    setup = dataclasses.replace(SETUP, sharding=sharding)
    state = make_state(placed(adapter), setup.optimizer, sharding)
    other = dataclasses.replace(frozen, params=placed(frozen.params))
    state, got = update(state, setup, other)
    for name in ("policy/loss", "policy/grad_norm", "policy/kl_k3_nats"):
        np.testing.assert_allclose(got[name], wanted[name], rtol=1e-4)
    pair = state.params["layers"]["mlp"]["up"]
    assert pair["lora_a"].sharding.shard_shape((1, 32, 2)) == (1, 16, 2)
    assert pair["lora_b"].sharding.shard_shape((1, 2, 64)) == (1, 2, 32)
    moments = [x for x in jax.tree.leaves(state.opt_state) if x.shape == pair["lora_b"].shape]
    assert moments
    assert all(x.sharding == pair["lora_b"].sharding for x in moments if x.shape[-1] == 64)


def test_muon_has_nothing_to_do_for_an_adapter():
    with pytest.raises(ValueError, match="Muon orthogonalises whole kernels, which LoRA leaves"):
        OptimizerConfig(rule=Muon()).check_goes_with(LORA)
    OptimizerConfig(rule=Muon()).check_goes_with(None)
