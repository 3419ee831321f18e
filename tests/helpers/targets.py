"""Packed batches with targets, as a learner fills them in."""

import dataclasses

import numpy as np

from jaxtool.algos.gae import last_token_rewards
from jaxtool.core.batch import TrainBatch
from jaxtool.core.types import Score
from jaxtool.learn.members import Members


def with_advantages(batch: TrainBatch, advantages) -> TrainBatch:
    """Each trajectory's advantage on its policy tokens."""
    of_token = np.asarray(advantages, np.float32)[batch.trajectory_ids]
    return dataclasses.replace(batch, advantages=np.where(batch.loss_mask, of_token, np.float32(0)))


def with_rewards(batch: TrainBatch, rewards) -> TrainBatch:
    """Each trajectory's reward on its last policy token."""
    of_token = np.asarray(rewards, np.float32)[batch.trajectory_ids]
    rewards = last_token_rewards(of_token, batch.loss_mask, batch.trajectory_ids)
    return dataclasses.replace(batch, token_rewards=rewards)


def members_of(rewards, samples: int | None = None, *, dropped=(), shaping=0.0) -> Members:
    """Groups of `samples`, by default one; None for a reward is a masked member."""
    return Members(
        scores=[
            None if r is None else Score(reward=r, is_correct=r > 0, shaping=shaping)
            for r in rewards
        ],
        group_ids=np.arange(len(rewards), dtype=np.int32) // (samples or len(rewards)),
        is_dropped=np.isin(np.arange(len(rewards)), dropped),
    )
