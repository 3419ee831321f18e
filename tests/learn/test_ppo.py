"""PPO with a critic through the real model: values, warm-up, what moves what, devices."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.ledgers import random_ledgers
from helpers.targets import members_of, with_rewards
from helpers.tiny_models import VOCAB, random_params

from jaxtool.algos import gae
from jaxtool.learn import grpo, ppo
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup, needs_reference
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.learner import make_learner
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.ppo_learner import PpoLearner
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
    return with_rewards(to_batch(random_ledgers(SHAPES), PackConfig(row_tokens=16)), REWARDS)


def make_state(params, setup, critic):
    return learner_of(setup, critic).start(params)


def learner_of(setup=SETUP, critic=CRITIC, reference=None) -> PpoLearner:
    return PpoLearner(setup=setup, critic=critic, view=PolicyView(first_copy=reference))


def update(state, batch, setup, critic):
    return learner_of(setup, critic).update(state, place_batch(batch, setup))


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
    state = make_state(params, SETUP, CRITIC)
    after, metrics = update(state, batch, SETUP, CRITIC)
    assert float(metrics["critic/value_mean"]) == 0.0
    assert float(metrics["critic/explained_variance_fraction"]) == 0.0
    outcomes = REWARDS[batch.trajectory_ids] * batch.loss_mask
    returns = outcomes[batch.loss_mask]
    np.testing.assert_allclose(metrics["critic/return_mean"], returns.mean(), rtol=1e-6)
    np.testing.assert_allclose(metrics["critic/loss"], 0.5 * np.mean(returns**2), rtol=1e-5)
    plain = dataclasses.replace(batch, advantages=gae.whitened(outcomes, batch.loss_mask))
    policy_learner = GrpoLearner(setup=SETUP, view=PolicyView())
    before = make_state(params, SETUP, CRITIC).policy
    wanted, _ = policy_learner.update(before, place_batch(plain, SETUP))
    assert same(after.policy, wanted)
    assert int(after.batches) == int(after.critic.step) == 1


def test_in_the_warm_up_only_the_critic_moves_and_everything_is_measured(params):
    critic = dataclasses.replace(CRITIC, warmup_batches=2)
    state = make_state(params, SETUP, critic)
    before = make_state(params, SETUP, critic)
    names = []
    for _ in range(2):
        state, metrics = update(state, batch_of(), SETUP, critic)
        names.append(set(metrics))
    assert same(state.policy, before.policy)
    assert not same(state.critic, before.critic)
    assert int(state.policy.step) == 0
    state, metrics = update(state, batch_of(), SETUP, critic)
    assert not same(state.policy, before.policy)
    assert set(metrics) - names[0] == {"policy/grad_norm", "policy/skipped_updates"}
    assert "mismatch/max_abs_logprob_nats" in names[0]


def test_the_critic_learns_the_returns(params):
    critic = dataclasses.replace(CRITIC, warmup_batches=99, value_clip=None)
    state = make_state(params, SETUP, critic)
    explained = []
    for _ in range(40):
        state, metrics = update(state, batch_of(), SETUP, critic)
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
            PolicyView(),
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
            PolicyView(),
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
        state = make_state(params, setup, CRITIC)
        results.append(update(state, batch_of(), setup, CRITIC)[1])
    for name in results[0]:
        np.testing.assert_allclose(results[0][name], results[1][name], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("updates", [1, 2])
def test_kl_in_the_reward_by_the_plain_sum(params, updates):
    """Each policy token pays 0.1 (log π - log π_ref), the last one gets the trajectory's reward.

    Without a critic the sum is taken off the reward of the whole trajectory, before its group is compared.
    """
    grpo_config = dataclasses.replace(SETUP.grpo, reward_kl_coef=0.1, updates_per_batch=updates)
    setup = dataclasses.replace(SETUP, grpo=grpo_config)
    packed = to_batch(random_ledgers(SHAPES), PackConfig(row_tokens=16))
    reference, members = random_params(MODEL, seed=1), members_of(REWARDS)
    learner = learner_of(setup, reference=reference)
    placed, given = learner.targets(learner.start(params), packed, members)
    np.testing.assert_array_equal(given, REWARDS)
    assert placed is not None
    blocks = list(row_blocks(packed, 2, single_device()))
    own, first = (
        np.concatenate([grpo.old_logprobs(p, block, setup=SETUP) for block in blocks])
        for p in (params, reference)
    )
    penalties = []
    for i, reward in enumerate(REWARDS):
        mine = (packed.trajectory_ids == i) & packed.loss_mask
        wanted = -0.1 * (own - first)[: packed.shape[0]][mine]
        penalties.append(-wanted.sum())
        wanted[-1] += reward
        assert abs(penalties[-1]) > 1e-3
        np.testing.assert_allclose(placed.host.token_rewards[mine], wanted, atol=1e-5)
    assert not np.any(placed.host.token_rewards[~packed.loss_mask])
    of_itself, _ = learner_of(setup, reference=params).targets(
        learner.start(params), packed, members
    )
    assert of_itself is not None
    np.testing.assert_array_equal(of_itself.host.token_rewards, batch_of().token_rewards)
    plain = GrpoLearner(setup=setup, view=PolicyView(first_copy=reference))
    _, advantages = plain.targets(plain.start(params), packed, members)
    rest = REWARDS - np.array(penalties)
    np.testing.assert_allclose(advantages, (rest - rest.mean()) / rest.std(ddof=1), rtol=1e-3)


def test_eight_devices_give_the_update_of_one(params):
    wanted, metrics = update(make_state(params, SETUP, CRITIC), batch_of(), SETUP, CRITIC)
    sharding = Sharding(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    placed = jax.device_put(params, sharding.tree(param_axes(params)))
    grpo_config = dataclasses.replace(SETUP.grpo, micro_batch_rows=4)
    setup = dataclasses.replace(SETUP, sharding=sharding, grpo=grpo_config)
    got, sharded = update(make_state(placed, setup, CRITIC), batch_of(), setup, CRITIC)
    for name in ("critic/loss", "critic/grad_norm", "policy/loss", "policy/grad_norm"):
        np.testing.assert_allclose(sharded[name], metrics[name], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        got.critic.params["value_head"], wanted.critic.params["value_head"], atol=1e-4
    )


def test_the_learner_is_chosen_by_the_critic(params):
    plain = make_learner(SETUP, None, PolicyView())
    with_critic = make_learner(SETUP, CRITIC, PolicyView())
    members = members_of([1.0, -1.0, None, 1.0, 0.5, 0.5], 2, dropped=[5])
    packed = to_batch(random_ledgers(SHAPES[:4]), PackConfig(row_tokens=16))
    wanted = {plain: [0.7071, -0.7071, 0, 0, 0, 0], with_critic: [1, -1, 0, 1, 0.5, 0.5]}
    for learner, values in wanted.items():
        state = learner.start(params)
        for x, y in zip(
            jax.tree.leaves(learner.policy(state)), jax.tree.leaves(params), strict=True
        ):
            np.testing.assert_array_equal(x, y)
        assert learner.packed(members) == [0, 1, 3, 4]
        placed, given = learner.targets(state, packed, members)
        assert placed is not None
        placed.host.check()
        np.testing.assert_allclose(given, values, atol=1e-4)
        column = placed.host.advantages if learner is plain else placed.host.token_rewards
        for j, member in enumerate([0, 1, 3, 4]):
            mine = column[(packed.trajectory_ids == j) & packed.loss_mask]
            assert mine[-1] == pytest.approx(values[member], abs=1e-4)
            assert np.all(mine[:-1] == (mine[-1] if learner is plain else 0))
        after, metrics = learner.update(state, placed)
        assert type(after) is type(learner.start(params))
        assert metrics
        assert learner.targets(after, None, members)[0] is None


def test_a_dropped_member_pays_its_kl_in_its_group_and_carries_no_loss(params):
    """Its tokens are in the batch for the log-probs; the update sees them off the mask."""
    grpo_config = dataclasses.replace(SETUP.grpo, reward_kl_coef=0.1)
    setup = dataclasses.replace(SETUP, grpo=grpo_config)
    learner = GrpoLearner(setup=setup, view=PolicyView(first_copy=random_params(MODEL, seed=1)))
    packed = to_batch(random_ledgers(SHAPES), PackConfig(row_tokens=16))
    all_of_them, with_dropped = members_of(REWARDS), members_of(REWARDS, dropped=[2])
    assert learner.packed(with_dropped) == learner.packed(all_of_them) == [0, 1, 2, 3, 4, 5]
    state = learner.start(params)
    _, wanted = learner.targets(state, packed, all_of_them)
    placed, given = learner.targets(state, packed, with_dropped)
    np.testing.assert_array_equal(given, wanted)
    assert placed is not None
    placed.host.check()
    for mini in placed.mini_batches:
        for block in (mini.host, *mini.blocks):
            of_it = np.asarray(block.trajectory_ids) == 2
            assert not np.any(np.asarray(block.loss_mask)[of_it])
            assert not np.any(np.asarray(block.advantages)[of_it])
    assert np.array_equal(placed.host.loss_mask, packed.loss_mask & (packed.trajectory_ids != 2))


def test_shaping_without_group_advantages_is_refused(params):
    learner = learner_of()
    with pytest.raises(ValueError, match="shapes group advantages"):
        learner.targets(learner.start(params), None, members_of([1.0], shaping=-0.5))


def test_a_reference_is_kept_only_where_a_kl_needs_it():
    assert not needs_reference(GrpoConfig())
    assert needs_reference(GrpoConfig(kl_coef=0.1))
    assert needs_reference(GrpoConfig(reward_kl_coef=0.1))
    with pytest.raises(ValueError, match="this view keeps no copy of it"):
        _ = PolicyView().first


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma": 1.5}, "CriticConfig.gamma must be >= 0 and <= 1, got 1.5"),
        ({"lam": -0.1}, "CriticConfig.lam must be >= 0 and <= 1, got -0.1"),
        ({"value_clip": 0.0}, "CriticConfig.value_clip must be > 0, got 0"),
        ({"warmup_batches": -1}, "CriticConfig.warmup_batches must be >= 0, got -1"),
    ],
)
def test_impossible_critics_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        CriticConfig(**fields)
