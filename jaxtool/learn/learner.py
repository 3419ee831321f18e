"""The learner of a run: the policy loss alone (GRPO and relatives), or with a critic (PPO)."""

import dataclasses

import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.core.types import Score
from jaxtool.learn import grpo, ppo
from jaxtool.learn.group_advantages import trajectory_advantages
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.ppo import CriticConfig, PpoState
from jaxtool.learn.reward_kl import token_penalties, trajectory_penalties
from jaxtool.learn.state import Metrics, TrainState, make_state
from jaxtool.model.lora import LoraBase, joined
from jaxtool.model.transformer import Params

LearnerState = TrainState | PpoState


@dataclasses.dataclass(frozen=True, kw_only=True)
class Learner:
    """What stays the same from step to step; the state goes in and comes out."""

    setup: LearnerSetup
    critic: CriticConfig | None
    reference: (
        Params | None
    )  # of the KL terms; None where their coefficients are 0, and with a base
    base: LoraBase | None = (
        None  # with LoRA: what the trained adapters are added to, and the reference
    )

    def start(self, params: Params) -> LearnerState:
        """State before the first update; `params` are copied. With LoRA they are a fresh adapter."""
        if self.critic is None:
            return make_state(params, self.setup.optimizer, self.setup.sharding)
        return ppo.make_ppo_state(params, self.setup, self.critic)

    @property
    def needs_penalties(self) -> bool:
        """Whether `signals` wants `penalties`: a critic takes them from each token instead."""
        return self.critic is None and self.setup.grpo.reward_kl_coef > 0

    def penalties(
        self, state: LearnerState, batch: TrainBatch, num_trajectories: int
    ) -> np.ndarray:
        """[n] float32, β Σₜ (log π - log π_ref) of each trajectory: what the KL takes off its reward."""
        trained = trained_params(state)
        tokens = token_penalties(trained, self.reference, batch, self.setup, self.base)
        return trajectory_penalties(tokens, np.asarray(batch.trajectory_ids), num_trajectories)

    def signals(
        self, scores: list[Score | None], group_ids: np.ndarray, penalties: np.ndarray | None = None
    ) -> np.ndarray:
        """[B] float32, what a batch gives to each trajectory's policy tokens; 0 for masked ones.

        The advantage in the trajectory's group, or its reward where a critic makes the advantages.

        Args:
          scores: of whole groups; None for masked trajectories.
          group_ids: [B] int32, the group of each score, counted from 0.
          penalties: taken off the rewards first; None for none.
        """
        rewards = np.array([s.reward if s else 0.0 for s in scores], np.float32)
        if penalties is not None:
            rewards = rewards - penalties
        shaping = np.array([s.shaping if s else 0.0 for s in scores], np.float32)
        if self.critic is None:
            return trajectory_advantages(
                rewards,
                shaping,
                group_ids,
                int(group_ids.max(initial=-1)) + 1,
                np.array([s is not None for s in scores]),
                self.setup.grpo,
            )
        if np.any(shaping):
            raise ValueError(
                "this reward shapes group advantages, and with RlConfig.critic there are none: "
                "choose another reward, or no critic"
            )
        return rewards

    def update(self, state: LearnerState, batch: TrainBatch) -> tuple[LearnerState, Metrics]:
        """All updates of one batch."""
        if isinstance(state, PpoState):
            assert self.critic is not None
            return ppo.update(state, self.reference, batch, self.setup, self.critic, self.base)
        return grpo.update(state, self.reference, batch, self.setup, self.base)

    def policy(self, state: LearnerState) -> Params:
        """What to sample from; with LoRA base and adapter, joined."""
        return joined(trained_params(state), self.base)


def trained_params(state: LearnerState) -> Params:
    """What is trained of the policy: all of it, or an adapter."""
    return state.policy.params if isinstance(state, PpoState) else state.params
