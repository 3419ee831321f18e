"""Corrections for the gap between sampler and learner that a run chooses from, for gin to build.

Each gives weights [B, T] of token losses from the learner's log-probs before the update and the
sampler's in the block. Several multiply. The equations are in `algos.off_policy`.
"""

import dataclasses
from typing import Protocol

import jax

from jaxtool.algos import off_policy
from jaxtool.core.batch import TrainBatch
from jaxtool.core.ranges import check_range


class Correction(Protocol):
    """Implementations are frozen dataclasses: hashable, so jit-static."""

    def __call__(
        self, train_logprobs: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> jax.Array: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenTruncation:
    """min(ρₜ, C): truncated importance sampling by token."""

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_range(self, "cap", above=0)
        _check_band(0.0, self.cap)

    def __call__(
        self, train_logprobs: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> jax.Array:
        del num_trajectories
        return off_policy.truncated_importance_weights(
            train_logprobs, block.behaviour_logprobs, cap=self.cap
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceTruncation:
    """min(Πρ, C): truncated importance sampling by trajectory. For short trajectories."""

    cap: float = 2.0

    def __post_init__(self) -> None:
        check_range(self, "cap", above=0)
        _check_band(0.0, self.cap)

    def __call__(
        self, train_logprobs: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> jax.Array:
        return off_policy.truncated_sequence_weights(
            train_logprobs,
            block.behaviour_logprobs,
            block.loss_mask,
            block.trajectory_ids,
            num_trajectories,
            cap=self.cap,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenMask:
    """ρₜ inside the band, 0 outside: masked importance sampling (IcePop)."""

    low: float = 0.5
    high: float = 5.0

    def __post_init__(self) -> None:
        _check_band(self.low, self.high)

    def __call__(
        self, train_logprobs: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> jax.Array:
        del num_trajectories
        return off_policy.masked_importance_weights(
            train_logprobs, block.behaviour_logprobs, low=self.low, high=self.high
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class GeometricRejection:
    """0 on every token of a trajectory whose geometric mean ratio is outside the band, else 1."""

    low: float = 0.999  # verl
    high: float = 1.001  # verl

    def __post_init__(self) -> None:
        _check_band(self.low, self.high)

    def __call__(
        self, train_logprobs: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> jax.Array:
        return off_policy.geometric_rejection(
            train_logprobs,
            block.behaviour_logprobs,
            block.loss_mask,
            block.trajectory_ids,
            num_trajectories,
            low=self.low,
            high=self.high,
        )


def _check_band(low: float, high: float) -> None:
    if not 0 <= low < high:
        raise ValueError(f"need 0 <= low < high (or cap): {low=} {high=}")
