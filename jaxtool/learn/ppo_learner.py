"""The learner with a critic: PPO, as ReTool (2504.11536, equation 1) and OTC-PPO (2504.14870, appendix B).

The policy's updates are those of `GrpoLearner`; what differs is where advantages come from. The critic
values each decision, and GAE over policy tokens alone turns the outcome reward into an advantage of each
token. Order of a step: values and advantages by the critic as it is, then the critic's update, then the
policy's.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.algos import gae
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.grpo_learner import GrpoLearner, place_batch
from jaxtool.learn.members import Members
from jaxtool.learn.placed_batch import PlacedBatch
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.programs import critic_programs
from jaxtool.learn.reward_kl import token_penalties
from jaxtool.learn.state import Metrics, TrainState, make_state, start_of_sum
from jaxtool.model.transformer import Params
from jaxtool.model.value_head import with_value_head
from jaxtool.parallel.host_arrays import put


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoState:
    """What an update changes."""

    policy: TrainState
    critic: TrainState
    batches: jax.Array  # [] int32, rollout batches learned: the warm-up counts them


@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoLearner:
    """See `learner.Learner`."""

    setup: LearnerSetup
    view: PolicyView
    critic: CriticConfig

    def start(self, trained: Params) -> PpoState:
        """The critic begins as the policy does, with a value head of zeros."""
        setup = self.setup
        tower = with_value_head(trained, setup.model)
        return PpoState(
            policy=self._policy_learner.start(trained),
            critic=make_state(tower, self.critic.optimizer, setup.sharding),
            batches=put(np.zeros((), np.int32), setup.sharding.named()),
        )

    def trained(self, state: PpoState) -> Params:
        return state.policy.params

    def policy(self, state: PpoState) -> Params:
        return self.view.full(state.policy.params)

    def with_rest(self, state: PpoState, move: Callable[[Any], Any]) -> PpoState:
        """The critic rests too."""
        policy = self._policy_learner.with_rest(state.policy, move)
        return dataclasses.replace(state, policy=policy, critic=move(state.critic))

    def with_policy(self, state: PpoState, move: Callable[[Any], Any]) -> PpoState:
        policy = self._policy_learner.with_policy(state.policy, move)
        return dataclasses.replace(state, policy=policy)

    def packed(self, members: Members) -> list[int]:
        """Those that carry a loss: a trajectory's targets need no other member of its group."""
        return np.flatnonzero(members.carries_loss).tolist()

    def targets(
        self, state: PpoState, batch: TrainBatch | None, members: Members
    ) -> tuple[PlacedBatch | None, np.ndarray]:
        """The last policy token of a trajectory gets its reward; with a KL in the reward each token pays its own.

        Raises:
          ValueError: the reward shapes group advantages, and there are none.
        """
        if np.any(members.shaping):
            raise ValueError(
                "this reward shapes group advantages, and with RlConfig.critic there are none: "
                "choose another reward, or no critic"
            )
        rewards = members.rewards
        if batch is None:
            return None, rewards
        mask, ids = np.asarray(batch.loss_mask), np.asarray(batch.trajectory_ids)
        of_trajectory = np.where(mask, rewards[self.packed(members)][ids], 0.0)
        token_rewards = gae.last_token_rewards(of_trajectory, mask, ids)
        placed = place_batch(batch, self.setup)
        if self.setup.grpo.reward_kl_coef:
            trained = state.policy.params
            token_rewards = token_rewards - token_penalties(trained, self.view, placed, self.setup)
        host = dataclasses.replace(placed.host, token_rewards=token_rewards)
        return dataclasses.replace(placed, host=host), rewards

    def token_advantages(self, state: PpoState, batch: PlacedBatch) -> np.ndarray:
        return self._estimates(batch.host, self._values(state, batch))[0].astype(np.float32)

    def update(self, state: PpoState, batch: PlacedBatch) -> tuple[PpoState, Metrics]:
        """All updates of one batch; the metrics are those of the first."""
        # 1. Values by the critic as it is, and with them advantages and returns of policy tokens.
        values = self._values(state, batch)
        advantages, returns, metrics = self._estimates(batch.host, values)
        # 2. The critic moves towards the returns.
        critic_state, critic_metrics = self._update_critic(state.critic, batch, values, returns)
        # 3. The policy, once the critic has been warmed up.
        learner, batch = self._policy_learner, batch.with_columns(advantages=advantages)
        if int(state.batches) < self.critic.warmup_batches:
            policy, policy_metrics = state.policy, learner.measure(state.policy, batch)
        else:
            policy, policy_metrics = learner.update(state.policy, batch)
        after = PpoState(policy=policy, critic=critic_state, batches=state.batches + 1)
        return after, metrics | critic_metrics | policy_metrics

    @property
    def _policy_learner(self) -> GrpoLearner:
        return GrpoLearner(setup=self.setup, view=self.view)

    def _values(self, state: PpoState, batch: PlacedBatch) -> np.ndarray:
        """[B, T] by the critic as it is."""
        tower = self.view.full(state.critic.params)
        programs = critic_programs(self.setup, self.critic)
        return batch.gathered(lambda block: programs.values.run(tower, block))

    def _estimates(
        self, batch: TrainBatch, values: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, Metrics]:
        """GAE and returns [B, T]; what the critic was worth."""
        mask, ids = np.asarray(batch.loss_mask), np.asarray(batch.trajectory_ids)
        advantages, returns = gae.generalized_advantages(
            batch.token_rewards, values, mask, ids, gamma=self.critic.gamma, lam=self.critic.lam
        )
        metrics = {
            "critic/explained_variance_fraction": gae.explained_variance(values, returns, mask),
            "critic/value_mean": float(values[mask].mean()),
            "critic/return_mean": float(returns[mask].mean()),
        }
        if self.critic.whitens:
            advantages = gae.whitened(advantages, mask)
        return advantages, returns, {k: jnp.float32(v) for k, v in metrics.items()}

    def _update_critic(
        self, state: TrainState, batch: PlacedBatch, values: np.ndarray, returns: np.ndarray
    ) -> tuple[TrainState, Metrics]:
        """One update a mini-batch, as the policy's are; metrics of the first, but for the count of those skipped."""
        first: Metrics = {}
        skipped: list[jax.Array] = []
        programs = critic_programs(self.setup, self.critic)
        aims = zip(batch.placed(values), batch.placed(returns), strict=True)
        for mini, (old_values, mini_returns) in zip(batch.mini_batches, aims, strict=True):
            if not mini.host.loss_mask.any():
                continue
            tokens = float(mini.host.loss_mask.sum())
            total = start_of_sum(state.params, len(mini.blocks), self.setup.sharding)
            num_clipped: Any = 0.0
            for block, old, aim in zip(mini.blocks, old_values, mini_returns, strict=True):
                inputs, count = block.without_targets(), np.float32(tokens)
                total, clipped = programs.gradient_block.run(
                    total, state.params, self.view, inputs, old, aim, count
                )
                num_clipped = num_clipped + clipped
            assert total is not None
            loss = total.loss
            state, norm, was_skipped = programs.update.run(state, total)
            skipped.append(was_skipped)
            first = first or {
                "critic/loss": loss,
                "critic/grad_norm": norm,
                "critic/clipped_fraction": num_clipped / tokens,
            }
        if skipped:
            first["critic/skipped_updates"] = jnp.sum(jnp.stack(skipped))
        return state, first
