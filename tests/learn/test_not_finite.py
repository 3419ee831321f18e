"""An update whose loss or gradient is not finite is left out: every number of the state stays as it was."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.grpo_batches import MODEL, batch_of, learner_of, setup_of
from helpers.targets import with_rewards
from helpers.tiny_models import random_params

from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.optimizer import Adafactor, AdamW, AdamW8bit, Muon, OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.ppo_learner import PpoLearner
from jaxtool.learn.state import Gradients, apply_gradients, make_state
from jaxtool.model.lora import FrozenPolicy, LoraConfig, init_adapter
from jaxtool.parallel.axis_rules import single_device

# A matrix that adam8bit quantises, and one that Muon orthogonalises.
SHAPES = {"embedding": (8, 16), "layers": {"mlp": {"gate": {"kernel": (2, 64, 64)}}}}


def leaves(tree) -> list[np.ndarray]:
    return [np.asarray(x) for x in jax.tree.leaves(tree)]


def assert_unmoved(after, before) -> None:
    for x, y in zip(leaves(after), leaves(before), strict=True):
        np.testing.assert_array_equal(x, y)


def some(scale: float):
    numbers = np.random.default_rng(0)
    return jax.tree.map(
        lambda shape: jnp.asarray(scale * numbers.standard_normal(shape), jnp.float32),
        SHAPES,
        is_leaf=lambda x: isinstance(x, tuple),
    )


@pytest.mark.parametrize("rule", [AdamW(), AdamW8bit(), Adafactor(), Muon()], ids=repr)
def test_no_rule_moves_by_what_is_not_finite(rule):
    config = OptimizerConfig(rule=rule, learning_rate=1e-2, weight_decay=0.1)

    def applied(loss: float, grads):
        state = make_state(some(1.0), config, single_device())
        total = Gradients(loss=jnp.float32(loss), grads=grads)
        return apply_gradients(state, total, config=config, sharding=single_device())

    before = make_state(some(1.0), config, single_device())
    grads = some(0.1)
    infinite = dict(grads, embedding=grads["embedding"].at[3, 4].set(jnp.inf))
    huge = dict(grads, embedding=grads["embedding"].at[3, 4].set(1e30))  # its square overflows
    for loss, broken in ((np.nan, grads), (np.inf, grads), (0.5, infinite), (0.5, huge)):
        after, _, skipped = applied(loss, broken)
        assert float(skipped) == 1.0
        assert_unmoved(after, before)
    after, norm, skipped = applied(0.5, grads)
    assert float(skipped) == 0.0
    assert np.isfinite(norm)
    assert int(after.step) == 1
    assert any(
        np.any(x != y) for x, y in zip(leaves(after.params), leaves(before.params), strict=True)
    )


def broken_in_one_row(batch):
    """A NaN as the advantage of one token."""
    row, column = np.argwhere(batch.loss_mask)[0]
    advantages = batch.advantages.copy()
    advantages[row, column] = np.nan
    return dataclasses.replace(batch, advantages=advantages)


def test_of_two_updates_of_a_batch_only_the_broken_one_is_skipped_and_counted():
    setup = setup_of(updates_per_batch=2, micro_batch_rows=2)
    learner = learner_of(setup)
    placed = place_batch(broken_in_one_row(batch_of()), setup)
    state, metrics = learner.update(learner.start(random_params(MODEL)), placed)
    assert float(metrics["policy/skipped_updates"]) == 1.0
    assert int(state.step) == 1
    assert all(np.isfinite(x).all() for x in leaves(state))


def test_an_adapter_stays_as_it_was():
    setup, lora = setup_of(), LoraConfig(rank=2, alpha=4.0)
    adapter = init_adapter(MODEL, lora, jax.random.key(0), single_device())
    view = PolicyView(frozen=FrozenPolicy(params=random_params(MODEL), config=lora))
    learner = GrpoLearner(setup=setup, view=view)
    before = learner.start(adapter)
    placed = place_batch(broken_in_one_row(batch_of()), setup)
    after, metrics = learner.update(learner.start(adapter), placed)
    assert float(metrics["policy/skipped_updates"]) == 1.0
    assert_unmoved(after, before)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_a_reward_that_is_not_finite_moves_neither_critic_nor_policy():
    setup = setup_of()
    learner = PpoLearner(
        setup=setup, critic=CriticConfig(warmup_batches=0), view=PolicyView(first_copy=None)
    )
    rewards = np.array([1.0, np.nan, 1.0, 1.0, -1.0, 1.0, 1.0, -1.0], np.float32)
    batch = with_rewards(batch_of(), rewards)
    before = learner.start(random_params(MODEL))
    after, metrics = learner.update(learner.start(random_params(MODEL)), place_batch(batch, setup))
    assert float(metrics["policy/skipped_updates"]) == 1.0
    assert float(metrics["critic/skipped_updates"]) == 1.0
    assert_unmoved((after.policy, after.critic), (before.policy, before.critic))
