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
    `logprob[b, t]` everywhere means log p(tokens[b, t] | what precedes it in its segment), and that segment's
    prefix where it has one: a prompt that trajectories share stands once, without its last token, and each of
    them begins with that token. So the token that predicts column t is always at column t - 1.
    """

    tokens: Any  # [B, T] int32
    positions: Any  # [B, T] int32, from 0 in each trajectory
    segment_ids: Any  # [B, T] int32, 1.. within a row, 0 on padding
    trajectory_ids: Any  # [B, T] int32, index in the batch, -1 on padding and on a shared prefix
    loss_mask: Any  # [B, T] bool, tokens the policy wrote (or SFT trains), with observations in an ablation
    behaviour_logprobs: Any  # [B, T] float32, 0 off the loss mask
    # [B, T] bool, tokens of the loss mask that were sampled. None: all; otherwise the others are observations.
    sampled_mask: Any = None
    # [B, T] int32, the segment before it in the row that a token's own continues, and which it also sees; 0: none.
    # None: no prompt of the batch is shared.
    prefix_ids: Any = None
    advantages: Any = None  # [B, T] float32, 0 off the loss mask
    token_rewards: Any = None  # [B, T] float64, on the host alone, 0 off the loss mask

    @property
    def shape(self) -> tuple[int, int]:
        rows, length = self.tokens.shape
        return rows, length

    @property
    def num_tokens(self) -> int:
        """Padding left out; a shared prompt counts once. Host arrays only."""
        return int(np.count_nonzero(self.segment_ids))

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
        if np.any(mask & _begins_segment(np.asarray(self.segment_ids))):
            raise ValueError("the loss mask covers a first token, which nothing predicts")
        if self.sampled_mask is not None and np.any(np.asarray(self.sampled_mask) & ~mask):
            raise ValueError("the mask of sampled tokens covers one that the loss mask does not")
        is_padding = np.asarray(self.segment_ids) == 0
        if np.any(
            (np.asarray(self.trajectory_ids) == NO_TRAJECTORY) != (is_padding | self._shared())
        ):
            raise ValueError("trajectory_ids and segment_ids disagree about padding")
        for name in ("behaviour_logprobs", "advantages", "token_rewards"):
            if getattr(self, name) is None:
                continue
            values = np.asarray(getattr(self, name))
            if not np.all(np.isfinite(values)):
                raise ValueError(f"TrainBatch.{name} holds values that are not finite")
            if np.any(values[~mask] != 0):
                raise ValueError(f"TrainBatch.{name} is not 0 off the loss mask")

    def _shared(self) -> np.ndarray:
        """[B, T] bool, tokens of segments that others continue.

        Raises:
          ValueError: a prefix does not stand in front of what continues it, or is itself a continuation.
        """
        shared = np.zeros(self.shape, bool)
        if self.prefix_ids is None:
            return shared
        segments, prefixes = np.asarray(self.segment_ids), np.asarray(self.prefix_ids)
        for row, (own, before) in enumerate(zip(segments, prefixes, strict=True)):
            for prefix in np.unique(before[before != 0]):
                at = np.flatnonzero(own == prefix)
                continued = np.flatnonzero(before == prefix)
                if not len(at) or at[-1] > continued[0] or np.any(before[at] != 0):
                    raise ValueError(
                        f"TrainBatch.prefix_ids: row {row} continues segment {prefix}, which does not stand "
                        "whole in front of it"
                    )
                shared[row, at] = True
        return shared


def _begins_segment(segment_ids: np.ndarray) -> np.ndarray:
    """[B, T] bool, the first token of each segment."""
    return np.diff(segment_ids, axis=1, prepend=0) != 0
