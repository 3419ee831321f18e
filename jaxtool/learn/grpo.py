"""The policy's loss: GRPO (DeepSeekMath, 2402.03300, equation 3) and its relatives as options.

Deviations from the papers: no KL term by default (ReTool, DAPO); clip-low and clip-high differ (DAPO);
averages are over policy tokens of the whole batch by default (DAPO), not per sequence first. In the
first update of a batch π_old is the policy that is being differentiated, so the ratio is exactly 1 and
nothing is clipped. A KL of `kl_coef` 0 keeps no reference policy.
"""

import dataclasses
from typing import Literal, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.algos import aggregation, kl
from jaxtool.algos.off_policy import mismatch_metrics
from jaxtool.config.callables import check_takes
from jaxtool.core.batch import TrainBatch
from jaxtool.core.ranges import check_range
from jaxtool.core.truncation import Truncation
from jaxtool.learn import advantage_choices, loss_choices
from jaxtool.learn.advantage_choices import Advantage, ClippedShaping, GroupNormalized
from jaxtool.learn.aggregation_choices import Aggregation, TokenMean
from jaxtool.learn.compile_options import learner_jit
from jaxtool.learn.loss_choices import PolicyLoss, PpoClip
from jaxtool.learn.off_policy_choices import Correction, TokenTruncation
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import Gradients, Metrics, add_gradients, batch_logprobs
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


class KlEstimator(Protocol):
    """KL(π ‖ π_ref) of each token [B, T]: a function of `algos.kl`, or one of the same form."""

    def __call__(self, logprobs: jax.Array, reference_logprobs: jax.Array, /) -> jax.Array: ...


SAMPLED_TOKENS = "sampled tokens"  # of a block's sums, where observations are learned: no metric


@dataclasses.dataclass(frozen=True, kw_only=True)
class GrpoConfig:
    """The policy's update; every variant is a field. A critic, where there is one, gives the advantages."""

    # Of a trajectory in its group; Dr.GRPO: NoStd. A function of one's own has the same arguments.
    advantage: Advantage = dataclasses.field(default_factory=GroupNormalized)
    shaping: ClippedShaping = dataclasses.field(default_factory=ClippedShaping)  # of advantages
    loss: PolicyLoss = dataclasses.field(default_factory=PpoClip)
    # OTC-PO: SequenceMean; Dr.GRPO: SequenceConstantMean
    aggregation: Aggregation = dataclasses.field(default_factory=TokenMean)
    kl_coef: float = 0.0  # of the KL against the parameters the run began with
    # As a loss; kl_k1 has no gradient in expectation.
    kl_estimator: KlEstimator = dataclasses.field(default=kl.kl_k3)
    reward_kl_coef: float = 0.0  # of k1 in the reward, before the advantages; Search-R1's PPO: 1e-3
    entropy_coef: float = 0.0
    # Weights against the sampler; they multiply. None: TokenTruncation where the decoder computes in
    # another dtype than the learner or in int8, see `with_off_policy`; () is none at all.
    off_policy: tuple[Correction, ...] | None = None
    old_policy: Literal["learner", "sampler"] = (
        "learner"  # whose log-probs are π_old: decoupled, bypass
    )
    updates_per_batch: int = 1  # mini-batches of one rollout batch; 1 is on-policy
    micro_batch_rows: int = 16  # packed rows per gradient block: the shape that is compiled
    lm_head_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        check_range(self, "kl_coef", "reward_kl_coef", least=0)
        check_range(self, "entropy_coef")
        check_range(self, "updates_per_batch", "micro_batch_rows", "lm_head_chunk", least=1)
        check_takes(self.advantage, advantage_choices.ARGUMENTS, "GrpoConfig.advantage")
        check_takes(self.loss, loss_choices.ARGUMENTS, "GrpoConfig.loss")
        kl_arguments = ("logprobs", "reference_logprobs")
        check_takes(self.kl_estimator, kl_arguments, "GrpoConfig.kl_estimator")
        if self.old_policy not in ("learner", "sampler"):
            raise ValueError(f"{self.old_policy=} must be 'learner' or 'sampler'")
        if self.old_policy == "sampler" and self.off_policy:
            raise ValueError(
                "old_policy='sampler' (bypass) lets the loss's own ratio correct for the sampler: "
                f"off_policy={self.off_policy} would do it twice; leave them out"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class OldLogprobs:
    """log π_old of a block of a batch with several updates.

    Before the first of them π_old is the policy that is differentiated. The block computes its
    log-probs anyway, so nobody computes them beforehand. A flag, not a program of its own: a gradient block of 32B
    takes minutes to compile.
    """

    values: jax.Array  # [B, T]; not read where `is_own`
    is_own: jax.Array | np.bool_  # []: π_old is the policy itself


def needs_reference(config: GrpoConfig) -> bool:
    """Whether a KL term asks for log-probs of the first policy."""
    return bool(config.kl_coef or config.reward_kl_coef)


def needs_old_logprobs(config: GrpoConfig, updates: int) -> bool:
    """Whether `updates` of one batch ask for log π_old: the only update's is the policy's own."""
    return updates > 1 and config.old_policy == "learner"


def with_off_policy(config: GrpoConfig, decoder_differs: str | None) -> GrpoConfig:
    """`config` with `off_policy=None` decided.

    Args:
      decoder_differs: why the sampler's log-probs are off by more than rounding, or None.
    """
    if config.off_policy is not None:
        return config
    is_needed = decoder_differs is not None and config.old_policy == "learner"
    return dataclasses.replace(config, off_policy=(TokenTruncation(),) if is_needed else ())


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerSetup:
    """What stays the same from step to step. Hashable, so jit-static."""

    model: ModelConfig
    grpo: GrpoConfig
    optimizer: OptimizerConfig
    sharding: Sharding
    temperature: float  # of the sampler
    num_trajectories: int  # in a rollout batch, masked ones included
    truncation: Truncation = dataclasses.field(default_factory=Truncation)  # of the sampler


def loss_count(batch: TrainBatch, config: GrpoConfig) -> int:
    """What the summed loss of the whole batch is divided by: tokens, or trajectories with a token."""
    return config.aggregation.count(batch)


@learner_jit(static=("setup",))
def old_logprobs(params: Params, block: TrainBatch, *, setup: LearnerSetup) -> jax.Array:
    """log π_old [B, T] under the learner's own forward pass, laid out as a block's fields are.

    Gradient blocks get either, so another layout would be another program.
    """
    return setup.sharding.constrain(_logprobs(params, block, setup)[0], "batch", "length")


@learner_jit(static=("setup",), donated=("total",))
def grpo_block(
    total: Gradients | None,
    params: Params,
    view: PolicyView,
    block: TrainBatch,
    old: OldLogprobs | None,
    count: jax.Array,
    *,
    setup: LearnerSetup,
) -> tuple[Gradients, Metrics]:
    """Adds one block's share of the loss and its gradient; returns sums for the metrics.

    Args:
      total: of the blocks before; None where this is the batch's only one.
      params: what is trained of the policy.
      view: makes a policy of them, and holds the first one for the KL.
      old: log π_old; None means that π_old is the current policy in every block of the batch.
      count: of the whole (mini-)batch, what the summed loss is divided by.
    """
    loss_of = jax.value_and_grad(_block_loss, has_aux=True)
    (loss, sums), grads = loss_of(params, view, block, old, count, setup)
    return add_gradients(total, loss, grads, setup.sharding), sums


def _block_loss(
    params: Params,
    view: PolicyView,
    block: TrainBatch,
    old: OldLogprobs | None,
    count: jax.Array,
    setup: LearnerSetup,
) -> tuple[jax.Array, Metrics]:
    """One block's share of the loss, and sums for the metrics; arguments as those of `grpo_block`."""
    config = setup.grpo
    # 1. Log-probs under the policy, its first version and the one before this batch's updates, which in
    #    the first update of a batch is the policy itself.
    logprobs, entropy = _logprobs(view.full(params), block, setup)
    reference = _logprobs(view.first, block, setup)[0] if needs_reference(config) else None
    before = jax.lax.stop_gradient(logprobs)
    if old is not None:
        before = jnp.where(old.is_own, before, old.values)
    # 2. The surrogate of each token, weighted against the sampler.
    old_policy = block.behaviour_logprobs if config.old_policy == "sampler" else before
    loss, is_clipped = config.loss(logprobs, old_policy, block, setup.num_trajectories)
    weights = _off_policy_weights(before, block, setup)
    loss = loss * weights
    values = {
        "policy/entropy_nats": entropy,
        "policy/clipped_fraction": is_clipped.astype(jnp.float32),
    }
    if config.off_policy:
        values["policy/correction_weight_mean"] = weights
        values["policy/rejected_fraction"] = (weights == 0.0).astype(jnp.float32)
    # 3. Entropy bonus and KL, token by token.
    if config.entropy_coef:
        loss = loss - config.entropy_coef * entropy
    if reference is not None:
        values["policy/kl_k3_nats"] = kl.kl_k3(logprobs, reference)
        loss = loss + config.kl_coef * config.kl_estimator(logprobs, reference)
    # 4. Sums over the block: of the loss by the aggregation, of what is measured over policy tokens.
    sums = {name: aggregation.token_mean(x, block.loss_mask)[0] for name, x in values.items()}
    sampled = block.loss_mask if block.sampled_mask is None else block.sampled_mask
    gap = mismatch_metrics(logprobs, block.behaviour_logprobs, sampled)
    if block.sampled_mask is not None:
        sums[SAMPLED_TOKENS] = jnp.sum(sampled.astype(jnp.float32))
    sums |= {
        "mismatch/mean_abs_logprob_nats": gap.abs_difference[0],
        "mismatch/max_abs_logprob_nats": gap.max_abs_difference,
        "mismatch/kl_k1_nats": gap.k1_kl[0],
        "mismatch/kl_k3_nats": gap.k3_kl[0],
        "mismatch/chi2": gap.chi2[0],
    }
    return config.aggregation(loss, block, setup.num_trajectories) / count, sums


def _off_policy_weights(before: jax.Array, block: TrainBatch, setup: LearnerSetup) -> jax.Array:
    """[B, T], the product of all corrections; ones without any."""
    weights = jnp.ones_like(before)
    for correction in setup.grpo.off_policy or ():
        weights = weights * correction(before, block, setup.num_trajectories)
    return weights


def _logprobs(
    params: Params, block: TrainBatch, setup: LearnerSetup
) -> tuple[jax.Array, jax.Array]:
    return batch_logprobs(
        params,
        block,
        model=setup.model,
        temperature=setup.temperature,
        chunk=setup.grpo.lm_head_chunk,
        sharding=setup.sharding,
        truncation=setup.truncation,
    )
