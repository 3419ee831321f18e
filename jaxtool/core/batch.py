"""TrainBatch: packed trajectories and what a learner aims at with them. Knows no text and no model."""

import dataclasses
from typing import Any

import jax
import numpy as np

NO_TRAJECTORY = -1  # trajectory index of padding


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainBatch:
    """Packed rows: several trajectories may share a row, none spans two.

    Arrays are numpy's on the host and JAX's on the device. Packing fills all but the targets, which are
    the learner's: advantages for the loss of a policy, rewards of tokens where a critic makes advantages
    of them, neither for maximum likelihood.
    `logprob[b, t]` everywhere means log p(tokens[b, t] | what precedes it in its segment).
    """

    tokens: Any  # [B, T] int32
    positions: Any  # [B, T] int32, from 0 in each trajectory
    segment_ids: Any  # [B, T] int32, 1.. within a row, 0 on padding
    trajectory_ids: Any  # [B, T] int32, index in the batch, -1 on padding
    loss_mask: Any  # [B, T] bool, tokens the policy wrote (or SFT trains), with observations in an ablation
    behaviour_logprobs: Any  # [B, T] float32, 0 off the loss mask
    # [B, T] bool, tokens of the loss mask that were sampled. None: all; otherwise the others are observations.
    sampled_mask: Any = None
    advantages: Any = None  # [B, T] float32, 0 off the loss mask
    token_rewards: Any = None  # [B, T] float64, on the host alone, 0 off the loss mask

    @property
    def shape(self) -> tuple[int, int]:
        rows, length = self.tokens.shape
        return rows, length

    def without_targets(self) -> "TrainBatch":
        """What a forward pass reads: one type of argument before and after targets are filled in."""
        return dataclasses.replace(self, advantages=None, token_rewards=None)

    def check(self) -> None:
        """Raises ValueError if an invariant does not hold. Host arrays only."""
        for field in dataclasses.fields(self):
            values = getattr(self, field.name)
            if values is not None and values.shape != self.tokens.shape:
                raise ValueError(
                    f"TrainBatch.{field.name}: shape={values.shape}, tokens {self.tokens.shape}"
                )
        mask = np.asarray(self.loss_mask)
        if not mask.any():
            raise ValueError("the loss mask covers no token: nothing in this batch can be learned")
        if np.any(mask & (np.asarray(self.segment_ids) == 0)):
            raise ValueError("the loss mask covers padding")
        if np.any(mask & (np.asarray(self.positions) == 0)):
            raise ValueError("the loss mask covers a first token, which nothing predicts")
        if self.sampled_mask is not None and np.any(np.asarray(self.sampled_mask) & ~mask):
            raise ValueError("the mask of sampled tokens covers one that the loss mask does not")
        is_padding = np.asarray(self.trajectory_ids) == NO_TRAJECTORY
        if np.any(is_padding != (np.asarray(self.segment_ids) == 0)):
            raise ValueError("trajectory_ids and segment_ids disagree about padding")
        for name in ("behaviour_logprobs", "advantages", "token_rewards"):
            if getattr(self, name) is None:
                continue
            values = np.asarray(getattr(self, name))
            if not np.all(np.isfinite(values)):
                raise ValueError(f"TrainBatch.{name} holds values that are not finite")
            if np.any(values[~mask] != 0):
                raise ValueError(f"TrainBatch.{name} is not 0 off the loss mask")
