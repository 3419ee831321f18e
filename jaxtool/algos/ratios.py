"""Ratios of probabilities, by token and by trajectory, from log-probs.

Deviation from the papers: log-ratios are clamped to ±20 before exp (as verl does), so that a tool
token, whose behaviour log-prob is a placeholder, cannot make an infinity: 0 ⋅ ∞ in the backward pass
would be NaN through any mask.
"""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.algos.aggregation import trajectory_sums

# exp(20) = 4.9e8: far beyond any ratio that a clip lets through, and finite in float32.
LOG_RATIO_LIMIT = 20.0


def log_ratio(
    numerator: Float[Array, "B T"], denominator: Float[Array, "B T"]
) -> Float[Array, "B T"]:
    """log numerator - log denominator of each token, float32, clamped to ±20."""
    difference = numerator.astype(jnp.float32) - denominator.astype(jnp.float32)
    return jnp.clip(difference, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def trajectory_log_ratio(
    numerator: Float[Array, "B T"],
    denominator: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
    *,
    is_mean: bool,
) -> Float[Array, "B T"]:
    """Σₜ log ratio of a trajectory's tokens in the mask, or their mean, on each of its tokens.

    The sum is clamped to ±20. Tokens of no trajectory get 0.

    Args:
      numerator: log-probs.
      denominator: log-probs.
      mask: tokens that the policy wrote; tool tokens take no part.
      trajectory_ids: index of each token's trajectory, -1 for none.
      num_trajectories: static upper bound of the ids.
      is_mean: divide by the number of tokens in the mask: the log of the geometric mean.
    """
    ratios = log_ratio(numerator, denominator)
    sums, counts = trajectory_sums(ratios, mask, trajectory_ids, num_trajectories)
    if is_mean:
        whole = sums / jnp.maximum(counts, 1.0)
    else:
        whole = jnp.clip(sums, -LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)
    own = jnp.take(whole, jnp.maximum(trajectory_ids, 0), axis=0)
    return jnp.where(trajectory_ids >= 0, own, 0.0)
