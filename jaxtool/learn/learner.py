"""What learners have in common: the policy's loss alone (GRPO and relatives), or with a critic (PPO)."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.grpo_learner import GrpoLearner
from jaxtool.learn.members import Members
from jaxtool.learn.placed_batch import PlacedBatch
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.ppo_learner import PpoLearner
from jaxtool.learn.state import Metrics
from jaxtool.model.transformer import Params

State = TypeVar("State")


class Learner(Protocol[State]):
    """What stays the same from step to step; the state goes in and comes out.

    One batch: `packed` names the trajectories to pack, `targets` fills in what each of their tokens aims
    at, `update` learns it.
    """

    @property
    def setup(self) -> LearnerSetup: ...

    @property
    def view(self) -> PolicyView: ...

    def start(self, trained: Params) -> State:
        """State before the first update; what is trained of the policy is copied."""
        ...

    def trained(self, state: State) -> Params:
        """What is trained of the policy: all of it, or an adapter."""
        ...

    def policy(self, state: State) -> Params:
        """All parameters of the policy: what to sample from."""
        ...

    def with_rest(self, state: State, move: Callable[[Any], Any]) -> State:
        """The state with `move` applied to what updates alone need: all but the policy's parameters."""
        ...

    def with_policy(self, state: State, move: Callable[[Any], Any]) -> State:
        """The state with `move` applied to the policy's parameters; with LoRA, whose adapter is small, as it is."""
        ...

    def packed(self, members: Members) -> list[int]:
        """Indices of the members whose tokens the batch holds, none of them masked."""
        ...

    def targets(
        self, state: State, batch: TrainBatch | None, members: Members
    ) -> tuple[PlacedBatch | None, np.ndarray]:
        """The batch on the devices with its targets, and each member's advantage or reward [n] float32.

        Args:
          state: before the updates of this batch.
          batch: of the `packed` members in their order, without targets; None where there are none.
        """
        ...

    def token_advantages(self, state: State, batch: PlacedBatch) -> np.ndarray:
        """Advantages [B, T] float32 that `update` would learn from, 0 off the loss mask; for people to look at.

        Args:
          state: before the updates of this batch. A critic runs once over the batch.
        """
        ...

    def update(self, state: State, batch: PlacedBatch) -> tuple[State, Metrics]:
        """All updates of one batch with targets; the metrics are those of the first."""
        ...


def make_learner(
    setup: LearnerSetup, critic: CriticConfig | None, view: PolicyView
) -> Learner[Any]:
    """The learner that a run's settings ask for."""
    if critic is None:
        return GrpoLearner(setup=setup, view=view)
    return PpoLearner(setup=setup, view=view, critic=critic)
