"""The learner without a critic: advantages from groups, and the updates of the policy (GRPO and relatives)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.core.batch import TrainBatch
from jaxtool.learn.group_advantages import trajectory_advantages
from jaxtool.learn.grpo import (
    SAMPLED_TOKENS,
    LearnerSetup,
    OldLogprobs,
    loss_count,
    needs_old_logprobs,
)
from jaxtool.learn.members import Members
from jaxtool.learn.placed_batch import MiniBatch, PlacedBatch, place
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.programs import policy_programs
from jaxtool.learn.reward_kl import token_penalties, trajectory_penalties
from jaxtool.learn.state import Gradients, Metrics, TrainState, make_state, start_of_sum
from jaxtool.model.transformer import Params


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpoLearner:
    """See `learner.Learner`."""

    setup: LearnerSetup
    view: PolicyView

    def start(self, trained: Params) -> TrainState:
        return make_state(trained, self.setup.optimizer, self.setup.sharding)

    def trained(self, state: TrainState) -> Params:
        return state.params

    def policy(self, state: TrainState) -> Params:
        return self.view.full(state.params)

    def with_rest(self, state: TrainState, move: Callable[[Any], Any]) -> TrainState:
        return dataclasses.replace(state, opt_state=move(state.opt_state))

    def with_policy(self, state: TrainState, move: Callable[[Any], Any]) -> TrainState:
        if self.view.frozen is not None:
            return state
        return dataclasses.replace(state, params=move(state.params))

    def packed(self, members: Members) -> list[int]:
        """Those that carry a loss; with a KL in the reward also those dropped, whose groups count it."""
        needs_all = self.setup.grpo.reward_kl_coef > 0
        return np.flatnonzero(members.is_valid if needs_all else members.carries_loss).tolist()

    def targets(
        self, state: TrainState, batch: TrainBatch | None, members: Members
    ) -> tuple[PlacedBatch | None, np.ndarray]:
        """Each policy token gets the advantage of its trajectory in its group."""
        rewards, packed = members.rewards, self.packed(members)
        placed = None if batch is None else place_batch(batch, self.setup)
        if placed is not None and self.setup.grpo.reward_kl_coef:
            tokens = token_penalties(state.params, self.view, placed, self.setup)
            ids = np.asarray(placed.host.trajectory_ids)
            rewards[packed] -= trajectory_penalties(tokens, ids, len(packed))
        advantages = trajectory_advantages(
            rewards,
            members.shaping,
            members.group_ids,
            members.num_groups,
            members.is_valid,
            self.setup.grpo,
        )
        if placed is not None:
            placed = _with_advantages(placed, advantages[packed], members.carries_loss[packed])
        return placed, advantages

    def token_advantages(self, state: TrainState, batch: PlacedBatch) -> np.ndarray:
        return np.asarray(batch.host.advantages)

    def update(
        self, state: TrainState, batch: PlacedBatch, *, moves: bool = True
    ) -> tuple[TrainState, Metrics]:
        """All updates of one batch; the metrics are those of the first, but for the count of those skipped.

        Args:
          moves: False to measure alone: the state comes back as it was.
        """
        setup, config, programs = self.setup, self.setup.grpo, policy_programs(self.setup)
        # 1. log π_old of every token, before the first update moves the policy. The first update needs
        #    none: its π_old is the policy that is differentiated, and the ratio is 1.
        learned = [mini for mini in batch.mini_batches if mini.host.loss_mask.any()]
        needs_old = needs_old_logprobs(config, len(batch.mini_batches))
        olds = [
            self._old(state, mini, is_first=index == 0) if needs_old else [None] * len(mini.blocks)
            for index, mini in enumerate(learned)
        ]
        first: Metrics = {}
        skipped: list[jax.Array] = []
        for mini, old in zip(learned, olds, strict=True):
            # 2. The gradient of a mini-batch, block by block. Each block's share is divided by what the
            #    whole mini-batch counts, so that blocks of any size add up to the same update.
            count = np.float32(loss_count(mini.host, config))
            total = start_of_sum(state.params, len(mini.blocks), setup.sharding)
            sums: list[Metrics] = []
            for block, block_old in zip(mini.blocks, old, strict=True):
                total, block_sums = programs.gradient_block.run(  # grpo.grpo_block
                    total, state.params, self.view, block, block_old, count
                )
                sums.append(block_sums)
            assert total is not None
            metrics = _metrics(total, sums, float(mini.host.loss_mask.sum()))
            # 3. One step of the optimizer.
            if moves:
                state, norm, was_skipped = programs.update.run(state, total)
                skipped.append(was_skipped)
                metrics["policy/grad_norm"] = norm
            first = first or metrics
        if skipped:
            first["policy/skipped_updates"] = jnp.sum(jnp.stack(skipped))
        return state, first

    def _old(
        self, state: TrainState, mini: MiniBatch, *, is_first: bool
    ) -> list[OldLogprobs | None]:
        """log π_old of each block; those of the first update are not computed here."""
        if is_first:
            # Any numbers of this shape and layout: they are not read.
            return [
                OldLogprobs(values=block.behaviour_logprobs, is_own=np.bool_(True))
                for block in mini.blocks
            ]
        policy, run = self.policy(state), policy_programs(self.setup).old_logprobs.run
        return [
            OldLogprobs(values=run(policy, block.without_targets()), is_own=np.bool_(False))
            for block in mini.blocks
        ]

    def measure(self, state: TrainState, batch: PlacedBatch) -> Metrics:
        """Metrics of one update on the whole batch, which is not made."""
        return self.update(state, batch.as_one(), moves=False)[1]


def place_batch(batch: TrainBatch, setup: LearnerSetup) -> PlacedBatch:
    """The batch on the learner's devices, cut as its updates read it."""
    return place(
        batch,
        updates=setup.grpo.updates_per_batch,
        rows=setup.grpo.micro_batch_rows,
        sharding=setup.sharding,
    )


def _with_advantages(
    batch: PlacedBatch, advantages: np.ndarray, carries_loss: np.ndarray
) -> PlacedBatch:
    """Advantages [n] on policy tokens; tokens of trajectories that carry no loss leave the mask."""
    ids, mask = np.asarray(batch.host.trajectory_ids), np.asarray(batch.host.loss_mask)
    columns: dict[str, np.ndarray] = {}
    if not carries_loss.all():
        mask = mask & carries_loss[ids]
        sampled = np.where(mask, batch.host.behaviour_logprobs, np.float32(0))
        columns = {"loss_mask": mask, "behaviour_logprobs": sampled}
        if batch.host.sampled_mask is not None:
            columns["sampled_mask"] = mask & np.asarray(batch.host.sampled_mask)
    columns["advantages"] = np.where(mask, advantages[ids], np.float32(0))
    return batch.with_columns(**columns)


def _metrics(total: Gradients, sums: list[Metrics], tokens: float) -> Metrics:
    metrics: Metrics = {"policy/loss": total.loss}
    # The gap to the sampler is a mean over what was sampled.
    learns_more = SAMPLED_TOKENS in sums[0]
    sampled = sum(each[SAMPLED_TOKENS] for each in sums) if learns_more else tokens
    for name in sums[0]:
        if name == SAMPLED_TOKENS:
            continue
        count = sampled if name.startswith("mismatch/") else tokens
        of_blocks = jnp.stack([block_sums[name] for block_sums in sums])
        metrics[name] = jnp.max(of_blocks) if "/max_" in name else jnp.sum(of_blocks) / count
    return metrics
