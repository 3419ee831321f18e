"""The critic's loss. Arrays in, arrays out; means are `aggregation.token_mean` over policy tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def clipped_value_loss(
    values: Float[Array, "B T"],
    old_values: Float[Array, "B T"],
    returns: Float[Array, "B T"],
    *,
    clip: float | None,
) -> tuple[Float[Array, "B T"], Bool[Array, "B T"]]:
    """Lₜ = ½ max((V - R)², (clip(V, V_old - ε, V_old + ε) - R)²), and where the clip decides.

    Value clipping of PPO's reference code, described in 2005.12729, section 3. Pessimistic: a value
    that moved away from V_old by more than ε gets no gradient if the move improved it.

    Args:
      values: V; the only argument with a gradient.
      old_values: V before this round of updates.
      returns: R, targets.
      clip: ε, in units of the reward, or None for the plain squared error.
    """
    values = values.astype(jnp.float32)
    old_values, returns = jax.lax.stop_gradient((old_values, returns))
    free = jnp.square(values - returns)
    if clip is None:
        return 0.5 * free, jnp.zeros(values.shape, bool)
    near = jnp.clip(values, old_values - clip, old_values + clip)
    bound = jnp.square(near - returns)
    return 0.5 * jnp.maximum(free, bound), bound > free
