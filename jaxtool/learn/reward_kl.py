"""The KL against the first policy as a part of the reward, before any advantage is made of it."""

import jax
import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.placed_batch import PlacedBatch
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.programs import policy_programs
from jaxtool.model.transformer import Params


def token_penalties(
    trained: Params, view: PolicyView, batch: PlacedBatch, setup: LearnerSetup
) -> np.ndarray:
    """β (log π - log π_ref) of each policy token [B, T] float32, 0 elsewhere: k1, which may be negative.

    Search-R1 (2503.09516), RLHF's reward; k1 is unbiased for the KL, and in the reward so is its
    gradient (in the loss it has none, see `algos.kl`).

    Args:
      trained: of the policy before this batch's updates.
    """
    policy, logprobs = view.full(trained), policy_programs(setup).old_logprobs

    def difference(block: TrainBatch) -> jax.Array:
        return logprobs.run(policy, block) - logprobs.run(view.first, block)

    scaled = setup.grpo.reward_kl_coef * batch.gathered(difference)
    return np.where(batch.host.loss_mask, scaled, 0.0).astype(np.float32)


def trajectory_penalties(
    token_penalties: np.ndarray, trajectory_ids: np.ndarray, num_trajectories: int
) -> np.ndarray:
    """[n] float32: Σₜ of each trajectory's token penalties, 0 for a trajectory without tokens."""
    is_token = trajectory_ids >= 0
    sums = np.bincount(
        trajectory_ids[is_token], weights=token_penalties[is_token], minlength=num_trajectories
    )
    return sums.astype(np.float32)
