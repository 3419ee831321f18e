"""A batch of eight short trajectories, a model of one layer, and the gradients of both."""

import dataclasses

import jax
import numpy as np
from helpers.ledgers import random_ledgers
from helpers.tiny_models import VOCAB

from jaxtool.core.batch import TrainBatch
from jaxtool.learn import grpo
from jaxtool.learn.grpo import GrpoConfig, LearnerSetup
from jaxtool.learn.optimizer import OptimizerConfig
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
    return to_batch(trajectories(), ADVANTAGES, PackConfig(row_tokens=row_tokens))


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


def gradients(params, batch, setup: LearnerSetup, reference=None, old=None):
    """Loss, gradient and metric sums of a batch as its blocks add up."""
    total = zero_gradients(params, setup.sharding)
    count = np.float32(grpo._loss_count(batch, setup.grpo))
    sums = []
    for block in row_blocks(batch, setup.grpo.micro_batch_rows, setup.sharding):
        total, part = grpo.grpo_block(total, params, reference, block, old, count, setup=setup)
        sums.append(part)
    return total, sums


def assert_same_gradients(one, other, rtol=1e-4, atol=1e-6):
    np.testing.assert_allclose(one.loss, other.loss, rtol=rtol, atol=atol)
    for x, y in zip(jax.tree.leaves(one.grads), jax.tree.leaves(other.grads), strict=True):
        assert np.any(y != 0)
        np.testing.assert_allclose(x, y, rtol=rtol, atol=atol)
