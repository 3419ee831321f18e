"""The KL against the first policy as a part of the reward, before any advantage is made of it."""

import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.grpo import LearnerSetup, old_logprobs
from jaxtool.learn.state import row_blocks
from jaxtool.model.lora import LoraBase, joined
from jaxtool.model.transformer import Params
from jaxtool.parallel.host_arrays import fetch


def token_penalties(
    params: Params,
    reference: Params | None,
    batch: TrainBatch,
    setup: LearnerSetup,
    base: LoraBase | None = None,
) -> np.ndarray:
    """β (log π - log π_ref) of each policy token [B, T] float32, 0 elsewhere: k1, which may be negative.

    Search-R1 (2503.09516), RLHF's reward; k1 is unbiased for the KL, and in the reward so is its
    gradient (in the loss it has none, see `algos.kl`).

    Args:
      params: of the policy before this batch's updates, or an adapter of `base`.
      reference: of the first policy; None with `base`, which it then is.
    """
    policy, first = joined(params, base), reference if base is None else base.params
    assert first is not None
    difference = [
        fetch(old_logprobs(policy, block, setup=setup) - old_logprobs(first, block, setup=setup))
        for block in row_blocks(batch, setup.grpo.micro_batch_rows, setup.sharding)
    ]
    whole = np.concatenate(difference)[: batch.shape[0]]
    mask = np.asarray(batch.loss_mask)
    return np.where(mask, setup.grpo.reward_kl_coef * whole, 0.0).astype(np.float32)


def trajectory_penalties(
    token_penalties: np.ndarray, trajectory_ids: np.ndarray, num_trajectories: int
) -> np.ndarray:
    """[n] float32: Σₜ of each trajectory's token penalties, 0 for a trajectory without tokens."""
    is_token = trajectory_ids >= 0
    sums = np.bincount(
        trajectory_ids[is_token], weights=token_penalties[is_token], minlength=num_trajectories
    )
    return sums.astype(np.float32)
