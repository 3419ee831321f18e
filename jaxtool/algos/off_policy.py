"""Corrections for tokens that another policy sampled than the one that learns, and how far both are apart.

ρₜ = π_train / π_behaviour. Every function gives weights [B, T] without gradient that multiply the
token losses: truncated weights lower the influence of large ratios, a weight of 0 rejects. Rejected
tokens stay in the denominators of the aggregations: a weight of 0 is a weight.

The three policies (decoupled PPO, 2110.00641): behaviour sampled, proximal is the
learner's policy before this round of updates and anchors the clip, current is trained. Decoupled:
weights of proximal to behaviour here, ratio of current to proximal in the loss. Bypass: the behaviour
policy is π_old (bypass), the loss's own ratio corrects, and weights on top would correct twice.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.algos.kl import kl_k3
from jaxtool.algos.ratios import log_ratio, trajectory_log_ratio
from jaxtool.core.masked import SumAndCount, masked_max, masked_sum


def truncated_importance_weights(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    *,
    cap: float,
) -> Float[Array, "B T"]:
    """wₜ = min(ρₜ, C).

    Token-level truncated importance sampling: Ionides (2008), "Truncated importance sampling", applied to the mismatch
    of sampler and learner by Yao et al., "Your efficient RL framework secretly brings you off-policy
    RL training" (2025).

    Args:
      train_logprobs: of the sampled tokens by the learner's forward, before this round of updates.
      behaviour_logprobs: of the same tokens by the sampler.
      cap: C, about 2.
    """
    ratio = jnp.exp(log_ratio(train_logprobs, behaviour_logprobs))
    return jax.lax.stop_gradient(jnp.minimum(ratio, cap))


def truncated_sequence_weights(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
    *,
    cap: float,
) -> Float[Array, "B T"]:
    """w = min(Πₜ ρₜ, C) of the whole trajectory, on each of its tokens.

    Sequence-level truncated importance sampling (verl, rollout_corr). The product of thousands of
    ratios explodes or vanishes: for short trajectories only.

    Args:
      train_logprobs: of the sampled tokens by the learner's forward, before this round of updates.
      behaviour_logprobs: of the same tokens by the sampler.
      mask: tokens that the policy wrote: what a tool wrote has no ratio.
      trajectory_ids: index of each token's trajectory, -1 for none.
      num_trajectories: static upper bound of the ids.
      cap: C, about 2.
    """
    whole = trajectory_log_ratio(
        train_logprobs, behaviour_logprobs, mask, trajectory_ids, num_trajectories, is_mean=False
    )
    return jax.lax.stop_gradient(jnp.minimum(jnp.exp(whole), cap))


def masked_importance_weights(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    *,
    low: float,
    high: float,
) -> Float[Array, "B T"]:
    """wₜ = ρₜ where low ≤ ρₜ ≤ high, else 0: what is too far off teaches nothing.

    Masked importance sampling: IcePop, as in INTELLECT-3 (2512.16144), equation 1 (there 0.5 and 5).

    Args:
      train_logprobs: of the sampled tokens by the learner's forward, before this round of updates.
      behaviour_logprobs: of the same tokens by the sampler.
      low: smallest ratio that counts.
      high: largest ratio that counts.
    """
    ratio = jnp.exp(log_ratio(train_logprobs, behaviour_logprobs))
    is_inside = (low <= ratio) & (ratio <= high)
    return jax.lax.stop_gradient(jnp.where(is_inside, ratio, 0.0))


def geometric_rejection(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
    *,
    low: float,
    high: float,
) -> Float[Array, "B T"]:
    """w = 1 where low ≤ (Πₜ ρₜ)^(1/|y|) ≤ high, else 0, on every token of the trajectory.

    Geometric-mean rejection (verl, rollout_corr: 0.999 and 1.001). Unlike the product it does not
    depend on length.

    Args:
      train_logprobs: of the sampled tokens by the learner's forward, before this round of updates.
      behaviour_logprobs: of the same tokens by the sampler.
      mask: tokens that the policy wrote: what a tool wrote has no ratio.
      trajectory_ids: index of each token's trajectory, -1 for none.
      num_trajectories: static upper bound of the ids.
      low: smallest geometric mean ratio that counts.
      high: largest geometric mean ratio that counts.
    """
    mean = trajectory_log_ratio(
        train_logprobs, behaviour_logprobs, mask, trajectory_ids, num_trajectories, is_mean=True
    )
    ratio = jnp.exp(mean)
    return jax.lax.stop_gradient(((low <= ratio) & (ratio <= high)).astype(jnp.float32))


class MismatchMetrics(NamedTuple):
    """How far the sampler's and the learner's log-probs of the same tokens are apart."""

    max_abs_difference: Float[Array, ""]  # nats; maximum over micro-batches and hosts
    abs_difference: SumAndCount  # nats
    k1_kl: (
        SumAndCount  # KL(π_behaviour ‖ π_train) by k1, nats; its exp is the ratio of perplexities
    )
    k3_kl: SumAndCount  # the same by k3, nats
    chi2: SumAndCount  # χ²(π_train ‖ π_behaviour) = E[ρ² - 1]: variance of the ratio


def mismatch_metrics(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> MismatchMetrics:
    """max |Δ| and means of |Δ|, -Δ, exp(Δ) - Δ - 1 and exp(2Δ) - 1, Δ = log π_train - log π_behaviour."""
    train = jax.lax.stop_gradient(train_logprobs)
    difference = train.astype(jnp.float32) - behaviour_logprobs.astype(jnp.float32)
    return MismatchMetrics(
        max_abs_difference=masked_max(jnp.abs(difference), mask, empty=0.0),
        abs_difference=masked_sum(jnp.abs(difference), mask),
        k1_kl=masked_sum(-difference, mask),
        k3_kl=masked_sum(kl_k3(behaviour_logprobs, train, clamp=None), mask),
        chi2=masked_sum(jnp.expm1(2.0 * log_ratio(train, behaviour_logprobs)), mask),
    )
