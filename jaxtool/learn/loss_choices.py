"""The policy losses that a run chooses from, as frozen objects that gin can build.

Each takes log-probs, those of π_old, a block of packed rows and the number of
trajectories of the batch; it gives loss and is_clipped [B, T]. The equations are in
`algos.policy_loss`.
"""

import dataclasses
from typing import Protocol

import jax

from jaxtool.algos import policy_loss
from jaxtool.core.batch import TrainBatch
from jaxtool.core.ranges import check_range

ARGUMENTS = ("logprobs", "old", "block", "num_trajectories")


class PolicyLoss(Protocol):
    """Implementations are frozen dataclasses: hashable, so jit-static."""

    def __call__(
        self, logprobs: jax.Array, old: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> tuple[jax.Array, jax.Array]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoClip:
    """The clipped surrogate of PPO; clip_high = clip_low is PPO's own, higher is DAPO's clip-higher."""

    clip_low: float = 0.2
    clip_high: float = 0.28
    dual_clip: float | None = None  # bound of the loss where the advantage is negative; verl: 10

    def __post_init__(self) -> None:
        check_range(self, "clip_high", least=0, may_be_infinite=True)
        check_range(self, "dual_clip", above=1)
        _check_clip(self.clip_low, self.clip_high)

    def __call__(
        self, logprobs: jax.Array, old: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> tuple[jax.Array, jax.Array]:
        del num_trajectories
        return policy_loss.clipped_surrogate(
            logprobs,
            old,
            block.advantages,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
            dual_clip=self.dual_clip,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gspo:
    """One ratio per trajectory (GSPO). Goes with GrpoConfig.aggregation = SequenceMean."""

    clip_low: float = 3e-4  # paper
    clip_high: float = 4e-4  # paper

    def __post_init__(self) -> None:
        check_range(self, "clip_high", least=0, may_be_infinite=True)
        _check_clip(self.clip_low, self.clip_high)

    def __call__(
        self, logprobs: jax.Array, old: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> tuple[jax.Array, jax.Array]:
        return policy_loss.gspo(
            logprobs,
            old,
            block.advantages,
            block.loss_mask,
            block.trajectory_ids,
            num_trajectories,
            clip_low=self.clip_low,
            clip_high=self.clip_high,
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cispo:
    """Clipped importance weights on log π (CISPO): no token loses its gradient."""

    clip_low: float | None = None  # paper: no lower bound
    clip_high: float = 0.2  # verl's example; the paper does not print its value

    def __post_init__(self) -> None:
        check_range(self, "clip_high", least=0, may_be_infinite=True)
        _check_clip(self.clip_low or 0.0, self.clip_high)

    def __call__(
        self, logprobs: jax.Array, old: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> tuple[jax.Array, jax.Array]:
        del num_trajectories
        return policy_loss.cispo(
            logprobs, old, block.advantages, clip_low=self.clip_low, clip_high=self.clip_high
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sapo:
    """A soft gate in place of the clip (SAPO)."""

    tau_positive: float = 1.0  # paper
    tau_negative: float = 1.05  # paper

    def __post_init__(self) -> None:
        check_range(self, "tau_positive", "tau_negative", above=0)

    def __call__(
        self, logprobs: jax.Array, old: jax.Array, block: TrainBatch, num_trajectories: int, /
    ) -> tuple[jax.Array, jax.Array]:
        del num_trajectories
        return policy_loss.sapo(
            logprobs,
            old,
            block.advantages,
            tau_positive=self.tau_positive,
            tau_negative=self.tau_negative,
        )


def _check_clip(low: float, high: float) -> None:
    if not 0 <= low < 1 or high < 0:
        raise ValueError(f"clip_low={low} must be in [0, 1) and clip_high={high} >= 0")
