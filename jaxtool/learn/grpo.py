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

from jaxtool.algos.policy_loss import (
    clipped_surrogate,
    kl_k3,
    sequence_mean,
    token_mean,
    truncated_importance_weights,
)
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.state import (
    OptimizerConfig,
    PerToken,
    TrainState,
    accumulate,
    apply_gradients,
    batch_logprobs,
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
    micro_batches: int = 1  # row blocks whose gradients are summed for one update
    logprob_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        if self.aggregation not in ("token_mean", "sequence_mean"):
            raise ValueError(f"{self.aggregation=} must be 'token_mean' or 'sequence_mean'")
        if not 0 <= self.clip_low < 1 or self.clip_high < 0:
            raise ValueError(f"{self.clip_low=} must be in [0, 1) and {self.clip_high=} >= 0")
        for name in ("updates_per_batch", "micro_batches", "logprob_chunk"):
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
) -> tuple[TrainState, dict[str, jax.Array]]:
    """All updates of one rollout batch; the metrics are those of the first."""
    parts = setup.grpo.updates_per_batch
    old = old_logprobs(state.params, batch, setup=setup) if parts > 1 else None
    if batch.shape[0] % (parts * setup.grpo.micro_batches):
        raise ValueError(
            f"{batch.shape[0]} packed rows do not divide into {parts=} x "
            f"{setup.grpo.micro_batches=}: make PackConfig.row_multiple a multiple of both"
        )
    first: dict[str, jax.Array] = {}
    for part in range(parts):
        # Strided, because packing puts the longest trajectories first.
        mini = jax.tree.map(lambda x: x[part::parts], batch)  # noqa: B023
        mini_old = None if old is None else old[part::parts]
        state, metrics = grpo_step(state, reference, mini, mini_old, setup=setup)
        first = first or metrics
    return state, first


@functools.partial(jax.jit, static_argnames=("setup",))
def old_logprobs(params: Params, batch: TrainBatch, *, setup: LearnerSetup) -> jax.Array:
    """log π_old [B, T] under the learner's own forward pass."""
    return _logprobs(params, batch, setup)[0]


@functools.partial(jax.jit, static_argnames=("setup",), donate_argnames=("state",))
def grpo_step(
    state: TrainState,
    reference: Params | None,
    batch: TrainBatch,
    old: jax.Array | None,
    *,
    setup: LearnerSetup,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One optimizer step on one (mini-)batch.

    Args:
      reference: parameters of the KL term; None where kl_coef is 0.
      old: log π_old [B, T]; None means that π_old is the current policy.
    """
    config = setup.grpo
    on_policy = old is None
    counts = token_mean(batch.advantages, batch.loss_mask)[1], _reduce(batch.advantages, batch, setup)[1]

    def loss_of(
        params: Params, inputs: tuple[TrainBatch, jax.Array]
    ) -> tuple[jax.Array, PerToken]:
        part, part_old = inputs
        logprobs, entropy = _logprobs(params, part, setup)
        anchor = jax.lax.stop_gradient(logprobs) if on_policy else part_old
        loss, per_token = _per_token_loss(logprobs, anchor, entropy, part, config)
        if reference is not None:
            reference_logprobs = jax.lax.stop_gradient(_logprobs(reference, part, setup)[0])
            per_token["kl"] = kl_k3(logprobs, reference_logprobs)
            loss = loss + config.kl_coef * per_token["kl"]
        total, _ = _reduce(loss, part, setup)
        return total / counts[1], jax.lax.stop_gradient(per_token)

    inputs = batch, batch.behaviour_logprobs if old is None else old
    loss, per_token, grads = accumulate(loss_of, state.params, inputs, config.micro_batches)
    state, grad_norm = apply_gradients(state, grads, setup.optimizer, setup.sharding)
    return state, {
        "policy/loss": loss,
        "policy/grad_norm": grad_norm,
        "tokens/policy_per_step": counts[0],
    } | _metrics(per_token, batch)


def _per_token_loss(
    logprobs: jax.Array, old: jax.Array, entropy: jax.Array, batch: TrainBatch, config: GrpoConfig
) -> tuple[jax.Array, PerToken]:
    """Surrogate, importance weight and entropy bonus of each token, and what the metrics need."""
    loss, is_clipped = clipped_surrogate(
        logprobs,
        old,
        batch.advantages,
        clip_low=config.clip_low,
        clip_high=config.clip_high,
        dual_clip=config.dual_clip,
    )
    if config.importance_cap is not None:
        loss = loss * truncated_importance_weights(
            old, batch.behaviour_logprobs, cap=config.importance_cap
        )
    if config.entropy_coef:
        loss = loss - config.entropy_coef * entropy
    return loss, {"logprobs": logprobs, "entropy": entropy, "clipped": is_clipped}


def _metrics(per_token: PerToken, batch: TrainBatch) -> dict[str, jax.Array]:
    def mean(values: jax.Array) -> jax.Array:
        total, count = token_mean(values.astype(jnp.float32), batch.loss_mask)
        return total / count

    gap = jnp.abs(per_token["logprobs"] - batch.behaviour_logprobs)
    metrics = {
        "policy/entropy_nats": mean(per_token["entropy"]),
        "policy/clipped_fraction": mean(per_token["clipped"]),
        "mismatch/mean_abs_logprob_nats": mean(gap),
        "mismatch/max_abs_logprob_nats": jnp.max(jnp.where(batch.loss_mask, gap, 0.0)),
    }
    if "kl" in per_token:
        metrics["policy/kl_k3_nats"] = mean(per_token["kl"])
    return metrics


def _reduce(
    values: jax.Array, batch: TrainBatch, setup: LearnerSetup
) -> tuple[jax.Array, jax.Array]:
    """(sum, count) of the chosen average."""
    if setup.grpo.aggregation == "token_mean":
        return token_mean(values, batch.loss_mask)
    return sequence_mean(values, batch.loss_mask, batch.trajectory_ids, setup.num_trajectories)


def _logprobs(
    params: Params, batch: TrainBatch, setup: LearnerSetup
) -> tuple[jax.Array, jax.Array]:
    return batch_logprobs(
        params,
        batch,
        model=setup.model,
        temperature=setup.temperature,
        chunk=setup.grpo.logprob_chunk,
        sharding=setup.sharding,
    )
