"""Reductions over the valid entries of an array.

Covered: sums that come with their count, so that micro-batches and hosts add pairs and divide once;
mean, variance, maximum, minimum and whitening for a whole array at hand.
Not covered: reductions by trajectory (`algos.policy_loss`) and sums over devices, which are the
caller's, on the pairs.

Every function selects with `jnp.where` before it reduces, so a NaN or an infinity under a False mask
reaches neither the value nor the gradient with respect to `values`. (An operation before the
reduction can still make one: the gradient of `log(x)` at x = 0 is 0 ⋅ ∞ whatever the mask.)
All arithmetic is in float32.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Added to the variance before its root in `whiten`; 1e-8 is what PPO implementations use (verl).
WHITEN_EPSILON = 1e-8

SumAndCount = tuple[Float[Array, ""], Float[Array, ""]]


def masked_sum(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> SumAndCount:
    """(Σ mask⋅values, Σ mask), both float32 scalars. Shapes must be equal; nothing is broadcast."""
    _check_shapes(values, mask)
    selected = jnp.where(mask, values.astype(jnp.float32), 0.0)
    return jnp.sum(selected), jnp.sum(mask, dtype=jnp.float32)


def divide(pair: SumAndCount) -> Float[Array, ""]:
    """sum / count; 0 where the count is 0, with gradient 0."""
    total, count = pair
    return jnp.where(count > 0, total / jnp.maximum(count, 1.0), 0.0)


def masked_mean(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> Float[Array, ""]:
    """Mean of the valid entries; 0 where there are none."""
    return divide(masked_sum(values, mask))


def masked_var(
    values: Float[Array, "..."], mask: Bool[Array, "..."], *, ddof: int = 0
) -> Float[Array, ""]:
    """Σ mask⋅(values - mean)² / (count - ddof); 0 where count ≤ ddof.

    Args:
      values: entries.
      mask: True where an entry counts.
      ddof: 0 for the population's variance, 1 for the sample estimate.
    """
    mean = masked_mean(values, mask)
    deviations = jnp.where(mask, values.astype(jnp.float32), mean) - mean
    total, count = masked_sum(jnp.square(deviations), mask)
    return divide((jnp.where(count > ddof, total, 0.0), jnp.maximum(count - ddof, 0.0)))


def masked_max(
    values: Float[Array, "..."], mask: Bool[Array, "..."], *, empty: float = -jnp.inf
) -> Float[Array, ""]:
    """Largest valid entry; `empty` where there is none."""
    _check_shapes(values, mask)
    largest = jnp.max(jnp.where(mask, values.astype(jnp.float32), -jnp.inf), initial=-jnp.inf)
    return jnp.where(jnp.any(mask), largest, empty)


def masked_min(
    values: Float[Array, "..."], mask: Bool[Array, "..."], *, empty: float = jnp.inf
) -> Float[Array, ""]:
    """Smallest valid entry; `empty` where there is none."""
    return -masked_max(-values, mask, empty=-empty)


def whiten(
    values: Float[Array, "*s"], mask: Bool[Array, "*s"], *, shifts_mean: bool = True
) -> Float[Array, "*s"]:
    """(values - mean) / √(var + 1e-8) on valid entries (population variance), 0 elsewhere.

    Args:
      values: entries.
      mask: True where an entry counts.
      shifts_mean: False keeps the mean where it was and only scales the spread around it.
    """
    mean = masked_mean(values, mask)
    deviations = jnp.where(mask, values.astype(jnp.float32), mean) - mean
    whitened = deviations * jax.lax.rsqrt(masked_var(values, mask) + WHITEN_EPSILON)
    return jnp.where(mask, whitened if shifts_mean else whitened + mean, 0.0)


def _check_shapes(values: Float[Array, "..."], mask: Bool[Array, "..."]) -> None:
    if values.shape != mask.shape:
        raise ValueError(f"values and mask differ: {values.shape=}, {mask.shape=}")
