"""The averages of token losses that a run chooses from, as frozen objects that gin can build.

Each gives a block's share of the sum, and the count of the whole batch that the sum is divided by.
The count is known on the host before the first block. The equations are in `algos.aggregation`.
"""

import dataclasses
from typing import Protocol

import jax
import numpy as np

from jaxtool.algos import aggregation
from jaxtool.core.batch import TrainBatch
from jaxtool.core.ranges import check_range


class Aggregation(Protocol):
    """Implementations are frozen dataclasses: hashable, so jit-static."""

    def __call__(self, values: jax.Array, block: TrainBatch, num_trajectories: int, /) -> jax.Array:
        """[], the sum over a block of packed rows, before the division by `count`.

        Args:
          values: [B, T], the loss of each token.
          block: rows whose trajectories are all whole.
          num_trajectories: of the whole batch; static.
        """
        ...

    def count(self, batch: TrainBatch) -> int:
        """What the sum over the whole host batch is divided by."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenMean:
    """Every token counts the same (DAPO)."""

    def __call__(self, values: jax.Array, block: TrainBatch, num_trajectories: int, /) -> jax.Array:
        del num_trajectories
        return aggregation.token_mean(values, block.loss_mask)[0]

    def count(self, batch: TrainBatch) -> int:
        return int(batch.loss_mask.sum())


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceMean:
    """Every trajectory counts the same, whatever its length (GRPO, OTC-PO)."""

    def __call__(self, values: jax.Array, block: TrainBatch, num_trajectories: int, /) -> jax.Array:
        ids = block.trajectory_ids
        return aggregation.sequence_mean(values, block.loss_mask, ids, num_trajectories)[0]

    def count(self, batch: TrainBatch) -> int:
        return _trajectories_with_loss(batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceSum:
    """The sum over a trajectory's tokens, averaged over trajectories."""

    def __call__(self, values: jax.Array, block: TrainBatch, num_trajectories: int, /) -> jax.Array:
        ids = block.trajectory_ids
        return aggregation.sequence_sum(values, block.loss_mask, ids, num_trajectories)[0]

    def count(self, batch: TrainBatch) -> int:
        return _trajectories_with_loss(batch)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SequenceConstantMean:
    """The sum over a trajectory's tokens over a constant, averaged over trajectories (Dr.GRPO)."""

    tokens: float | None = None  # the constant; None: the run's RolloutConfig.max_response_tokens

    def __post_init__(self) -> None:
        check_range(self, "tokens", above=0)

    def __call__(self, values: jax.Array, block: TrainBatch, num_trajectories: int, /) -> jax.Array:
        if self.tokens is None:
            raise ValueError(
                "SequenceConstantMean.tokens is None, the run's budget: fill it in first"
            )
        rows = block.loss_mask, block.trajectory_ids, num_trajectories
        return aggregation.sequence_constant_mean(values, *rows, tokens=self.tokens)[0]

    def count(self, batch: TrainBatch) -> int:
        return _trajectories_with_loss(batch)


def _trajectories_with_loss(batch: TrainBatch) -> int:
    return len(np.unique(np.asarray(batch.trajectory_ids)[np.asarray(batch.loss_mask)]))
