"""Three estimates of KL(π ‖ π_ref) from the tokens that π wrote.

Schulman, "Approximating KL divergence" (2020), names them. As estimates of the value k1 and k3 are
unbiased. As *losses* they differ: the expected gradient of k1 is 0, that of k2 is the KL's own, and
that of k3 is the KL's only to first order; so k1 belongs into the reward, k2 and k3 into the loss.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxtool.algos.ratios import log_ratio


def kl_k1(
    logprobs: Float[Array, "B T"], reference_logprobs: Float[Array, "B T"]
) -> Float[Array, "B T"]:
    """k1 = log π - log π_ref: unbiased, large variance, may be negative. Schulman (2020).

    Args:
      logprobs: of the policy that wrote the tokens; carries the gradient.
      reference_logprobs: of the reference policy, without gradient.
    """
    return log_ratio(logprobs, jax.lax.stop_gradient(reference_logprobs))


def kl_k2(
    logprobs: Float[Array, "B T"], reference_logprobs: Float[Array, "B T"]
) -> Float[Array, "B T"]:
    """k2 = (log π - log π_ref)² / 2: biased value, unbiased gradient. Schulman (2020).

    Args:
      logprobs: of the policy that wrote the tokens; carries the gradient.
      reference_logprobs: of the reference policy, without gradient.
    """
    return 0.5 * jnp.square(kl_k1(logprobs, reference_logprobs))


def kl_k3(
    logprobs: Float[Array, "B T"],
    reference_logprobs: Float[Array, "B T"],
    *,
    clamp: float | None = None,
) -> Float[Array, "B T"]:
    """k3 = exp(d) - d - 1 with d = log π_ref - log π: unbiased for KL(π ‖ π_ref), never negative.

    GRPO (2402.03300), equation 4; Schulman (2020).

    Args:
      logprobs: of the policy that wrote the tokens; carries the gradient.
      reference_logprobs: of the reference policy, without gradient.
      clamp: upper bound of a token's value (verl: 10), or None.
    """
    difference = log_ratio(jax.lax.stop_gradient(reference_logprobs), logprobs)
    k3 = jnp.expm1(difference) - difference
    return k3 if clamp is None else jnp.minimum(k3, clamp)
