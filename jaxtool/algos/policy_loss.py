"""Token losses of PPO and GRPO and the ways to average them.

Covered: the clipped surrogate with dual clip, the k3 estimate of the KL, truncated importance
weights, mismatch metrics, and four aggregations.
Not covered: models, configs, entropy, advantages. Arrays in, arrays out.

Rows are packed: a row of [B, T] holds several trajectories one after another and padding. Which
tokens count is said once, by the mask given to an aggregation (True on tokens that the policy wrote);
the per-token functions compute garbage, but finite garbage, on other tokens. No trajectory spans two
rows or two micro-batches; the aggregations by trajectory rest on that.
Every aggregation gives (sum, count): add the pairs of all micro-batches and hosts, then divide once.

Deviation from the papers: log-ratios are clamped to ±20 before exp (as verl does), so that a tool
token, whose behaviour log-prob is a placeholder, cannot make an infinity: 0 ⋅ ∞ in the backward pass
would be NaN through any mask.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.core.masked import SumAndCount, masked_max, masked_sum

# exp(20) = 4.9e8: far beyond any ratio that a clip lets through, and finite in float32.
LOG_RATIO_LIMIT = 20.0


def clipped_surrogate(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Lₜ = -min(ρA, clip(ρ, 1-ε_low, 1+ε_high)A), ρ = exp(log π - log π_old); is_clipped.

    PPO (1707.06347), equation 7; two epsilons: DAPO (2503.14476), equation 10. With dual_clip = c,
    where A < 0: Lₜ = min(Lₜ, -cA), Dual-clip PPO (1912.09729), equation 5.

    Args:
      logprobs: of the policy that is trained; the only argument with a gradient.
      old_logprobs: of the policy before this round of updates.
      advantages: one a token.
      clip_low: ε_low, for example 0.2.
      clip_high: ε_high, for example 0.28.
      dual_clip: c > 1, or None for none.

    Returns:
      Loss and whether a clip took the gradient away, per token.
    """
    ratio = jnp.exp(_log_ratio(logprobs, jax.lax.stop_gradient(old_logprobs)))
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    free = -ratio * advantages
    clipped = -jnp.clip(ratio, 1.0 - clip_low, 1.0 + clip_high) * advantages
    loss = jnp.maximum(free, clipped)
    is_clipped = clipped > free
    if dual_clip is not None:
        bound = -dual_clip * advantages
        is_bounded = (advantages < 0) & (loss > bound)
        loss = jnp.where(is_bounded, bound, loss)
        is_clipped = is_clipped | is_bounded
    return loss, is_clipped


def kl_k3(
    logprobs: Float[Array, "B T"],
    reference_logprobs: Float[Array, "B T"],
    *,
    clamp: float | None = None,
) -> Float[Array, "B T"]:
    """k3 = exp(d) - d - 1 with d = log π_ref - log π: unbiased for KL(π ‖ π_ref), never negative.

    GRPO (2402.03300), equation 4; Schulman, "Approximating KL divergence" (2020).

    Args:
      logprobs: of the policy that wrote the tokens; carries the gradient.
      reference_logprobs: of the reference policy, without gradient.
      clamp: upper bound of a token's value (verl: 10), or None.
    """
    difference = _log_ratio(jax.lax.stop_gradient(reference_logprobs), logprobs)
    k3 = jnp.expm1(difference) - difference
    return k3 if clamp is None else jnp.minimum(k3, clamp)


def truncated_importance_weights(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    *,
    cap: float,
) -> Float[Array, "B T"]:
    """wₜ = min(π_train / π_behaviour, C), without gradient; multiplies the loss of its token.

    Token-level truncated importance sampling: Ionides (2008), "Truncated importance sampling", applied to the mismatch
    of sampler and learner by Yao et al., "Your efficient RL framework secretly brings you off-policy
    RL training" (2025).

    Args:
      train_logprobs: of the sampled tokens by the learner's forward, before this round of updates.
      behaviour_logprobs: of the same tokens by the sampler.
      cap: C, about 2.
    """
    ratio = jnp.exp(_log_ratio(train_logprobs, behaviour_logprobs))
    return jax.lax.stop_gradient(jnp.minimum(ratio, cap))


class MismatchMetrics(NamedTuple):
    """How far the sampler's and the learner's log-probs of the same tokens are apart."""

    max_abs_difference: Float[Array, ""]  # nats; maximum over micro-batches and hosts
    abs_difference: SumAndCount  # nats
    k3_kl: SumAndCount  # KL(π_behaviour ‖ π_train) by k3, nats


def mismatch_metrics(
    train_logprobs: Float[Array, "B T"],
    behaviour_logprobs: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
) -> MismatchMetrics:
    """max |Δ|, mean |Δ| and k3 = exp(Δ) - Δ - 1 of Δ = log π_train - log π_behaviour, by the mask."""
    train = jax.lax.stop_gradient(train_logprobs)
    difference = jnp.abs(train.astype(jnp.float32) - behaviour_logprobs.astype(jnp.float32))
    return MismatchMetrics(
        max_abs_difference=masked_max(difference, mask, empty=0.0),
        abs_difference=masked_sum(difference, mask),
        k3_kl=masked_sum(kl_k3(behaviour_logprobs, train, clamp=None), mask),
    )


def token_mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> SumAndCount:
    """(Σᵢ Σₜ values, Σᵢ |yᵢ|): every token counts the same. DAPO (2503.14476), equation 12."""
    return masked_sum(values, mask)


def sequence_sum(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
) -> SumAndCount:
    """(Σᵢ Σₜ values, number of trajectories with a token in the mask).

    Args:
      values: per token.
      mask: True where the policy wrote the token.
      trajectory_ids: index of the trajectory of each token in [0, num_trajectories), -1 for none.
      num_trajectories: static upper bound; ids that do not occur count nothing.
    """
    sums, counts = _by_trajectory(values, mask, trajectory_ids, num_trajectories)
    return jnp.sum(sums), jnp.sum(counts > 0, dtype=jnp.float32)


def sequence_mean(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
) -> SumAndCount:
    """(Σᵢ (1/|yᵢ|) Σₜ values, number of trajectories with |yᵢ| > 0); |yᵢ| counts tokens in the mask.

    Every trajectory counts the same. GRPO (2402.03300), equation 3; OTC-PO (2504.14870), appendix B.
    Arguments as in `sequence_sum`.
    """
    sums, counts = _by_trajectory(values, mask, trajectory_ids, num_trajectories)
    return jnp.sum(sums / jnp.maximum(counts, 1.0)), jnp.sum(counts > 0, dtype=jnp.float32)


def sequence_constant_mean(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
    *,
    tokens: float,
) -> SumAndCount:
    """(Σᵢ Σₜ values / tokens, number of trajectories with a token in the mask).

    A constant in place of |yᵢ|, so that length does not bias. Dr.GRPO (2503.20783), section 3.2.

    Args:
      values: as in `sequence_sum`, and so the next three.
      mask: see there.
      trajectory_ids: see there.
      num_trajectories: see there.
      tokens: the constant, usually max_response_tokens.
    """
    total, count = sequence_sum(values, mask, trajectory_ids, num_trajectories)
    return total / tokens, count


def _log_ratio(
    numerator: Float[Array, "B T"], denominator: Float[Array, "B T"]
) -> Float[Array, "B T"]:
    difference = numerator.astype(jnp.float32) - denominator.astype(jnp.float32)
    return jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def _by_trajectory(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Sum of values and number of tokens in the mask, for each of n = num_trajectories."""
    selected = jnp.where(mask, values.astype(jnp.float32), 0.0).ravel()
    # segment_sum drops indices out of range, so -1 belongs to nobody.
    index = trajectory_ids.ravel()
    sums = jax.ops.segment_sum(selected, index, num_trajectories)
    counts = jax.ops.segment_sum(mask.ravel().astype(jnp.float32), index, num_trajectories)
    return sums, counts
