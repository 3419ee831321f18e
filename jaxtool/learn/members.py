"""The members of a step's groups as they were scored: what the targets of a batch are made of."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.core.types import Score


@dataclasses.dataclass(frozen=True, kw_only=True)
class Members:
    """All members of whole groups, group after group; some of them carry no loss."""

    scores: Sequence[Score | None]  # None where infrastructure failed: masked, in no statistics
    group_ids: np.ndarray  # [n] int32, from 0
    is_dropped: np.ndarray  # [n] bool, carries no loss, but is in its group's statistics

    @property
    def num_groups(self) -> int:
        return int(self.group_ids[-1]) + 1 if len(self.group_ids) else 0

    @property
    def rewards(self) -> np.ndarray:
        """[n] float32, 0 for masked members."""
        return np.array([s.reward if s else 0.0 for s in self.scores], np.float32)

    @property
    def shaping(self) -> np.ndarray:
        """[n] float32, 0 for masked members."""
        return np.array([s.shaping if s else 0.0 for s in self.scores], np.float32)

    @property
    def is_valid(self) -> np.ndarray:
        """[n] bool, False for masked members."""
        return np.array([s is not None for s in self.scores], bool)

    @property
    def carries_loss(self) -> np.ndarray:
        """[n] bool."""
        return self.is_valid & ~self.is_dropped
