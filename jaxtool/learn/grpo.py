"""GRPO (DeepSeekMath, 2402.03300, equation 3) with DAPO's and Dr.GRPO's choices as options.

Deviations from the papers: no KL term by default (ReTool, DAPO); clip-low and clip-high differ (DAPO);
averages are over policy tokens of the whole batch by default (DAPO), not per sequence first. With one
update per batch π_old is the policy that is being differentiated, so the ratio is exactly 1 and
nothing is clipped.
"""

import dataclasses
import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.algos.policy_loss import (
    clipped_surrogate,
    kl_k3,
    sequence_mean,
    token_mean,
    truncated_importance_weights,
)
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.state import (
    Gradients,
    Metrics,
    TrainState,
    add_gradients,
    apply_gradients,
    batch_logprobs,
    row_blocks,
    zero_gradients,
)
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """One policy loss; every variant is a field."""

    normalizes_by_std: bool = True  # False is Dr.GRPO: rewards keep their scale
    aggregation: Literal["token_mean", "sequence_mean"] = "token_mean"  # OTC-PO: sequence_mean
    clip_low: float = 0.2
    clip_high: float = 0.28  # DAPO's clip-higher
    dual_clip: float | None = None  # bound of the loss where the advantage is negative; verl: 10
    kl_coef: float = 0.0  # of k3 against the parameters the run began with
    entropy_coef: float = 0.0
    importance_cap: float | None = None  # truncated importance sampling against the sampler; 2
    updates_per_batch: int = 1  # mini-batches of one rollout batch; 1 is strictly on-policy
    block_rows: int = 16  # packed rows per gradient block: the shape that is compiled
    logprob_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        if self.aggregation not in ("token_mean", "sequence_mean"):
            raise ValueError(f"{self.aggregation=} must be 'token_mean' or 'sequence_mean'")
        if not 0 <= self.clip_low < 1 or self.clip_high < 0:
            raise ValueError(f"{self.clip_low=} must be in [0, 1) and {self.clip_high=} >= 0")
        for name in ("updates_per_batch", "block_rows", "logprob_chunk"):
            if getattr(self, name) < 1:
                raise ValueError(f"GrpoConfig.{name} must be >= 1, got {getattr(self, name)}")
        if self.kl_coef < 0 or (self.importance_cap is not None and self.importance_cap <= 0):
            raise ValueError(f"{self.kl_coef=} must be >= 0 and {self.importance_cap=} > 0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerSetup:
    """What stays the same from step to step. Hashable, so jit-static."""

    model: ModelConfig
    grpo: GrpoConfig
    optimizer: OptimizerConfig
    sharding: Sharding
    temperature: float  # of the sampler
    num_trajectories: int  # in a rollout batch, masked ones included


def update(
    state: TrainState, reference: Params | None, batch: TrainBatch, setup: LearnerSetup
) -> tuple[TrainState, Metrics]:
    """All updates of one host batch; the metrics are those of the first.

    Args:
      reference: parameters of the KL term; None where kl_coef is 0.
    """
    parts = min(setup.grpo.updates_per_batch, batch.shape[0])
    # Strided, because packing puts the longest trajectories into the first rows.
    mini_batches = [jax.tree.map(lambda x: x[part::parts], batch) for part in range(parts)]  # noqa: B023
    olds: list[list[jax.Array | None]] = [
        [
            None if parts == 1 else old_logprobs(state.params, block, setup=setup)
            for block in row_blocks(mini, setup.grpo.block_rows, setup.sharding)
        ]
        for mini in mini_batches
    ]
    first: Metrics = {}
    for mini, old in zip(mini_batches, olds, strict=True):
        if not mini.loss_mask.any():
            continue
        state, metrics = _update_once(state, reference, mini, old, setup)
        first = first or metrics
    return state, first


def _update_once(
    state: TrainState,
    reference: Params | None,
    batch: TrainBatch,
    olds: list[jax.Array | None],
    setup: LearnerSetup,
) -> tuple[TrainState, Metrics]:
    count = np.float32(_loss_count(batch, setup.grpo))
    tokens = float(batch.loss_mask.sum())
    total = zero_gradients(state.params)
    sums: list[Metrics] = []
    blocks = row_blocks(batch, setup.grpo.block_rows, setup.sharding)
    for block, old in zip(blocks, olds, strict=True):
        total, block_sums = grpo_block(
            total, state.params, reference, block, old, count, setup=setup
        )
        sums.append(block_sums)
    loss = total.loss
    state, grad_norm = apply_gradients(
        state, total, config=setup.optimizer, sharding=setup.sharding
    )
    metrics: Metrics = {"policy/loss": loss, "policy/grad_norm": grad_norm}
    for name in sums[0]:
        values = [block_sums[name] for block_sums in sums]
        whole = jnp.stack(values)
        metrics[name] = jnp.max(whole) if "/max_" in name else jnp.sum(whole) / tokens
    return state, metrics


def _loss_count(batch: TrainBatch, config: GrpoConfig) -> int:
    """What the summed loss of the whole batch is divided by."""
    if config.aggregation == "token_mean":
        return int(batch.loss_mask.sum())
    return len(np.unique(np.asarray(batch.trajectory_ids)[np.asarray(batch.loss_mask)]))


@functools.partial(jax.jit, static_argnames=("setup",))
def old_logprobs(params: Params, block: TrainBatch, *, setup: LearnerSetup) -> jax.Array:
    """log π_old [B, T] under the learner's own forward pass."""
    return _logprobs(params, block, setup)[0]


@functools.partial(jax.jit, static_argnames=("setup",), donate_argnames=("total",))
def grpo_block(
    total: Gradients,
    params: Params,
    reference: Params | None,
    block: TrainBatch,
    old: jax.Array | None,
    count: jax.Array,
    *,
    setup: LearnerSetup,
) -> tuple[Gradients, Metrics]:
    """Adds one block's share of the loss and its gradient; returns sums for the metrics.

    Args:
      old: log π_old [B, T]; None means that π_old is the current policy.
      count: of the whole (mini-)batch, what the summed loss is divided by.
    """
    config = setup.grpo

    def loss_of(params: Params) -> tuple[jax.Array, Metrics]:
        logprobs, entropy = _logprobs(params, block, setup)
        anchor = jax.lax.stop_gradient(logprobs) if old is None else old
        loss, is_clipped = _token_loss(logprobs, anchor, entropy, block, config)
        values = {
            "policy/entropy_nats": entropy,
            "policy/clipped_fraction": is_clipped.astype(jnp.float32),
            "mismatch/mean_abs_logprob_nats": jnp.abs(logprobs - block.behaviour_logprobs),
        }
        if reference is not None:
            values["policy/kl_k3_nats"] = kl_k3(logprobs, _logprobs(reference, block, setup)[0])
            loss = loss + config.kl_coef * values["policy/kl_k3_nats"]
        sums = {name: token_mean(x, block.loss_mask)[0] for name, x in values.items()}
        gap = values["mismatch/mean_abs_logprob_nats"]
        sums["mismatch/max_abs_logprob_nats"] = jnp.max(jnp.where(block.loss_mask, gap, 0.0))
        return _summed(loss, block, setup) / count, sums

    (loss, sums), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return add_gradients(total, loss, grads), sums


def _token_loss(
    logprobs: jax.Array, old: jax.Array, entropy: jax.Array, block: TrainBatch, config: GrpoConfig
) -> tuple[jax.Array, jax.Array]:
    """Clipped surrogate with importance weight and entropy bonus, and where it was clipped."""
    loss, is_clipped = clipped_surrogate(
        logprobs,
        old,
        block.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )
    if config.importance_cap is not None:
        weights = truncated_importance_weights(
            old, block.behaviour_logprobs, cap=config.importance_cap
        )
        loss = loss * weights
    if config.entropy_coef:
        loss = loss - config.entropy_coef * entropy
    return loss, is_clipped


def _summed(values: jax.Array, block: TrainBatch, setup: LearnerSetup) -> jax.Array:
    if setup.grpo.aggregation == "token_mean":
        return token_mean(values, block.loss_mask)[0]
    return sequence_mean(values, block.loss_mask, block.trajectory_ids, setup.num_trajectories)[0]


def _logprobs(
    params: Params, block: TrainBatch, setup: LearnerSetup
) -> tuple[jax.Array, jax.Array]:
    return batch_logprobs(
        params,
        block,
        model=setup.model,
        temperature=setup.temperature,
        chunk=setup.grpo.logprob_chunk,
        sharding=setup.sharding,
    )
