"""A batch of eight short trajectories, a model of one layer, and the gradients of both."""

import dataclasses

import jax
import numpy as np
from helpers.ledgers import random_ledgers
from helpers.targets import with_advantages
from helpers.tiny_models import VOCAB

from jaxtool.core.batch import TrainBatch
from jaxtool.learn import grpo
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import row_blocks, zero_gradients
from jaxtool.model.config import tiny
from jaxtool.parallel.axis_rules import Sharding, single_device
from jaxtool.rollout.batching import PackConfig, to_batch

MODEL = dataclasses.replace(tiny(VOCAB), num_layers=1, scans_layers=False)
SHAPES = ("QQpppttpp", "QQppp", "QQpppppp", "Qppttp", "QQQpp", "QpppttpQ"[:7], "QQpp", "Qpppp")
ADVANTAGES = np.array([1.0, -0.5, 0.25, 2.0, -1.0, 0.5, -2.0, 1.5], np.float32)


def trajectories(seed: int = 0):
    return random_ledgers(SHAPES, seed)


def batch_of(row_tokens: int = 16):
    return with_advantages(to_batch(trajectories(), PackConfig(row_tokens=row_tokens)), ADVANTAGES)


def without_advantages(batch: TrainBatch) -> TrainBatch:
    return dataclasses.replace(batch, advantages=np.zeros_like(batch.advantages))


def setup_of(sharding: Sharding | None = None, **fields) -> LearnerSetup:
    return LearnerSetup(
        model=MODEL,
        grpo=GrpoConfig(**({"micro_batch_rows": 8, "lm_head_chunk": 8} | fields)),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        sharding=sharding or single_device(),
        temperature=1.0,
        num_trajectories=len(SHAPES),
    )


def learner_of(setup: LearnerSetup, reference=None) -> GrpoLearner:
    return GrpoLearner(setup=setup, view=PolicyView(first_copy=reference))


def update(state, batch: TrainBatch, setup: LearnerSetup):
    return learner_of(setup).update(state, place_batch(batch, setup))


def gradients(params, batch, setup: LearnerSetup, reference=None, old=None):
    """Loss, gradient and metric sums of a batch as its blocks add up."""
    view = PolicyView(first_copy=reference)
    total = zero_gradients(params, setup.sharding)
    count = np.float32(grpo.loss_count(batch, setup.grpo))
    sums = []
    if old is not None:
        old = grpo.OldLogprobs(values=old, is_own=np.bool_(False))
    for block in row_blocks(batch, setup.grpo.micro_batch_rows, setup.sharding):
        total, part = grpo.grpo_block(total, params, view, block, old, count, setup=setup)
        sums.append(part)
    return total, sums


def assert_same_gradients(one, other, rtol=1e-4, atol=1e-6):
    np.testing.assert_allclose(one.loss, other.loss, rtol=rtol, atol=atol)
    for x, y in zip(jax.tree.leaves(one.grads), jax.tree.leaves(other.grads), strict=True):
        assert np.any(y != 0)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
