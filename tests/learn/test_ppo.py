"""PPO with a critic through the real model: values, warm-up, what moves what, devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ledgers import random_ledgers
from helpers.tiny_models import VOCAB, random_params

from jaxtool.algos import gae
from jaxtool.core.types import Score
from jaxtool.learn import grpo, ppo
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup, needs_reference
from jaxtool.learn.learner import Learner
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig, make_ppo_state
from jaxtool.learn.state import row_blocks, zero_gradients
from jaxtool.model.config import tiny
from jaxtool.model.param_axes import param_axes
from jaxtool.model.transformer import hidden_states
from jaxtool.model.value_head import token_values, with_value_head
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.rollout.batching import PackConfig, to_batch

MODEL = dataclasses.replace(tiny(VOCAB), num_layers=1, scans_layers=False)
SHAPES = ("QQpppttpp", "QQppp", "QQpppppp", "Qppttp", "QQQpp", "Qpppttp")
REWARDS = np.array([1.0, -1.0, 1.0, 1.0, -1.0, 1.0], np.float32)
SETUP = LearnerSetup(
    model=MODEL,
    grpo=GrpoConfig(micro_batch_rows=2, lm_head_chunk=8),
    optimizer=OptimizerConfig(learning_rate=1e-2),
    sharding=single_device(),
    temperature=1.0,
    num_trajectories=len(SHAPES),
)
CRITIC = CriticConfig(optimizer=OptimizerConfig(learning_rate=1e-2), warmup_batches=0)


@pytest.fixture(scope="module")
def params():
    return random_params(MODEL)


def batch_of():
    return to_batch(random_ledgers(SHAPES), REWARDS, PackConfig(row_tokens=16))


def leaves(state) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(state.params)]


def same(one, other) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(leaves(one), leaves(other), strict=True))


def test_value_head_begins_at_zero_and_reads_what_precedes_the_token(params):
    [block, *_] = row_blocks(batch_of(), 2, single_device())
    rows = block.tokens, block.positions, block.segment_ids, single_device()
    critic = with_value_head(params, MODEL)
    assert "lm_head" not in critic
    np.testing.assert_array_equal(token_values(critic, MODEL, *rows), np.zeros((2, 16)))
    head = jnp.asarray(np.random.default_rng(0).normal(size=MODEL.d_model), jnp.float32)
    values = token_values(critic | {"value_head": head}, MODEL, *rows)
    hidden = hidden_states(params, MODEL, *rows)
    np.testing.assert_allclose(values[:, 1:], (hidden @ head)[:, :-1], rtol=1e-4, atol=1e-5)
    assert not np.any(values[:, 0])


def test_first_step_is_reinforce_with_whitened_returns(params):
    """V = 0 and γ = λ = 1: advantages are the rewards, whitened, so the policy moves as by `grpo` with those."""
    batch = batch_of()
    state = make_ppo_state(params, SETUP, CRITIC)
    after, metrics = ppo.update(state, None, batch, SETUP, CRITIC)
    assert float(metrics["critic/value_mean"]) == 0.0
    assert float(metrics["critic/explained_variance_fraction"]) == 0.0
    returns = np.asarray(batch.advantages)[batch.loss_mask]
    np.testing.assert_allclose(metrics["critic/return_mean"], returns.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["critic/loss"], 0.5 * np.mean(returns**2), rtol=1e-5)
    plain = dataclasses.replace(batch, advantages=gae.whitened(batch.advantages, batch.loss_mask))
    wanted, _ = grpo.update(make_ppo_state(params, SETUP, CRITIC).policy, None, plain, SETUP)
    assert same(after.policy, wanted)
    assert int(after.batches) == int(after.critic.step) == 1


def test_in_the_warm_up_only_the_critic_moves_and_everything_is_measured(params):
    critic = dataclasses.replace(CRITIC, warmup_batches=2)
    state = make_ppo_state(params, SETUP, critic)
    before = make_ppo_state(params, SETUP, critic)
    names = []
    for _ in range(2):
        state, metrics = ppo.update(state, None, batch_of(), SETUP, critic)
        names.append(set(metrics))
    assert same(state.policy, before.policy)
    assert not same(state.critic, before.critic)
    assert int(state.policy.step) == 0
    state, metrics = ppo.update(state, None, batch_of(), SETUP, critic)
    assert not same(state.policy, before.policy)
    assert set(metrics) - names[0] == {"policy/grad_norm"}
    assert "mismatch/max_abs_logprob_nats" in names[0]


def test_the_critic_learns_the_returns(params):
    critic = dataclasses.replace(CRITIC, warmup_batches=99, value_clip=None)
    state = make_ppo_state(params, SETUP, critic)
    explained = []
    for _ in range(40):
        state, metrics = ppo.update(state, None, batch_of(), SETUP, critic)
        explained.append(float(metrics["critic/explained_variance_fraction"]))
    assert explained[0] == 0.0
    assert explained[-1] > 0.8


def test_value_clipping_bounds_how_far_a_batch_moves_the_critic(params):
    """Two updates a batch; without a clip the second goes on, with a tiny one it has nothing to do."""
    setup = dataclasses.replace(SETUP, grpo=dataclasses.replace(SETUP.grpo, updates_per_batch=1))
    [block, *_] = row_blocks(batch_of(), 2, single_device())
    critic_params = with_value_head(params, MODEL) | {
        "value_head": jnp.full((MODEL.d_model,), 0.05, jnp.float32)
    }
    values = ppo.critic_values(critic_params, block, setup=setup)
    returns = values + 1.0  # the values have moved by +.5 from the old ones, towards the returns
    for clip, moves in ((0.1, False), (None, True)):
        total, _ = ppo.critic_block(
            zero_gradients(critic_params, SETUP.sharding),
            critic_params,
            block,
            values - 0.5,
            returns,
            np.float32(1),
            setup=setup,
            critic=dataclasses.replace(CRITIC, value_clip=clip),
        )
        assert any(np.any(g) for g in jax.tree.leaves(total.grads)) is moves


def test_what_tools_and_prompts_are_worth_changes_nothing(params):
    """Garbage off the mask in returns and old values: the same loss and gradient, bit by bit."""
    batch = batch_of()
    [block, *_] = row_blocks(batch, 2, single_device())
    critic_params = with_value_head(params, MODEL)
    numbers = np.random.default_rng(0)
    wanted_values, returns = (numbers.normal(size=(2, 16)).astype(np.float32) for _ in "ab")
    mask = np.asarray(block.loss_mask)

    def gradient(old, target):
        return ppo.critic_block(
            zero_gradients(critic_params, SETUP.sharding),
            critic_params,
            block,
            jnp.asarray(old),
            jnp.asarray(target),
            np.float32(7),
            setup=SETUP,
            critic=CRITIC,
        )[0]

    wanted = gradient(wanted_values, returns)
    got = gradient(np.where(mask, wanted_values, 1e6), np.where(mask, returns, -1e6))
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(x, y)


def test_blocks_of_any_size_give_the_update_of_one(params):
    whole = dataclasses.replace(SETUP, grpo=dataclasses.replace(SETUP.grpo, micro_batch_rows=4))
    results = []
    for setup in (SETUP, whole):
        state = make_ppo_state(params, setup, CRITIC)
        results.append(ppo.update(state, None, batch_of(), setup, CRITIC)[1])
    for name in results[0]:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-4, atol=1e-5)


def test_kl_in_the_reward_by_the_plain_sum(params):
    """γ = λ = 1, V = 0: the return of the first policy token is R - Σ 0.1 (log π - log π_ref).

    Without a critic the same sum is taken off the reward of the whole trajectory.
    """
    setup = dataclasses.replace(SETUP, grpo=dataclasses.replace(SETUP.grpo, reward_kl_coef=0.1))
    batch, reference = batch_of(), random_params(MODEL, seed=1)
    state = make_ppo_state(params, setup, CRITIC)
    _, _, returns, _ = ppo._with_advantages(state, reference, batch, setup, CRITIC)
    learner = Learner(setup=setup, critic=None, reference=reference)
    assert learner.needs_penalties
    taken_off = learner.penalties(state, batch, len(SHAPES))
    blocks = list(row_blocks(batch, 2, single_device()))
    own, first = (
        np.concatenate([grpo.old_logprobs(p, block, setup=SETUP) for block in blocks])
        for p in (params, reference)
    )
    for i, reward in enumerate(REWARDS):
        mine = (batch.trajectory_ids == i) & batch.loss_mask
        penalty = 0.1 * (own - first)[: batch.shape[0]][mine].sum()
        assert abs(penalty) > 1e-3
        assert returns[mine][0] == pytest.approx(reward - penalty, abs=1e-5)
        assert taken_off[i] == pytest.approx(penalty, abs=1e-5)
    _, _, same, _ = ppo._with_advantages(state, params, batch, setup, CRITIC)
    np.testing.assert_allclose(same, batch.advantages, atol=1e-5)
    signals = learner.signals(
        scores_of([1.0, 1.0]), np.zeros(2, np.int32), np.array([0.5, 0.0], np.float32)
    )
    np.testing.assert_allclose(signals, [-0.7071, 0.7071], atol=1e-4)


def test_eight_devices_give_the_update_of_one(params):
    wanted, metrics = ppo.update(
        make_ppo_state(params, SETUP, CRITIC), None, batch_of(), SETUP, CRITIC
    )
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    grpo_config = dataclasses.replace(SETUP.grpo, micro_batch_rows=4)
    setup = dataclasses.replace(SETUP, sharding=sharding, grpo=grpo_config)
    got, sharded = ppo.update(
        make_ppo_state(placed, setup, CRITIC), None, batch_of(), setup, CRITIC
    )
    for name in ("critic/loss", "critic/grad_norm", "policy/loss", "policy/grad_norm"):
        np.testing.assert_allclose(sharded[name], metrics[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        got.critic.params["value_head"], wanted.critic.params["value_head"], atol=1e-4
    )


def scores_of(rewards, shaping=0.0):
    return [Score(reward=r, is_correct=r > 0, shaping=shaping) for r in rewards]


def test_the_learner_is_chosen_by_the_critic(params):
    plain = Learner(setup=SETUP, critic=None, reference=None)
    with_critic = Learner(setup=SETUP, critic=CRITIC, reference=None)
    scores = [*scores_of([1.0, -1.0]), None, Score(reward=1.0, is_correct=True)]
    groups = np.array([0, 0, 1, 1], np.int32)
    np.testing.assert_allclose(plain.signals(scores, groups), [0.7071, -0.7071, 0, 1], atol=1e-4)
    np.testing.assert_array_equal(with_critic.signals(scores, groups), [1, -1, 0, 1])
    for learner, kind in ((plain, grpo.TrainState), (with_critic, ppo.PpoState)):
        state = learner.start(params)
        assert isinstance(state, kind)
        for x, y in zip(
            jax.tree.leaves(learner.policy(state)), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_array_equal(x, y)
        after, _ = learner.update(state, batch_of())
        assert isinstance(after, kind)


def test_shaping_without_group_advantages_is_refused():
    learner = Learner(setup=SETUP, critic=CRITIC, reference=None)
    with pytest.raises(ValueError, match="shapes group advantages"):
        learner.signals(scores_of([1.0], shaping=-0.5), np.zeros(1, np.int32))


def test_a_reference_is_kept_only_where_a_kl_needs_it():
    assert not needs_reference(GrpoConfig())
    assert needs_reference(GrpoConfig(kl_coef=0.1))
    assert needs_reference(GrpoConfig(reward_kl_coef=0.1))
    with_critic = dataclasses.replace(SETUP.grpo, reward_kl_coef=0.1)
    setup = dataclasses.replace(SETUP, grpo=with_critic)
    assert not Learner(setup=setup, critic=CRITIC, reference=None).needs_penalties


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma": 1.5}, "CriticConfig.gamma=1.5"),
        ({"lam": -0.1}, "CriticConfig.lam=-0.1"),
        ({"value_clip": 0.0}, "value_clip=0.0"),
        ({"warmup_batches": -1}, "warmup_batches=-1 must be >= 0"),
    ],
)
def test_impossible_critics_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CriticConfig(**fields)
