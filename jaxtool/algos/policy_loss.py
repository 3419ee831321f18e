"""The policy losses: PPO's clipped surrogate with dual clip, GSPO, CISPO and SAPO.

Not covered: models, configs, entropy, KL (`kl`), averages (`aggregation`), weights against the
sampler (`off_policy`), advantages. Dr.GRPO is `clipped_surrogate` with `group_advantages` without
std and `sequence_constant_mean`.

Each gives the loss of each token and whether a clip took its gradient away, [B, T]. Which tokens
count is said by the mask of an aggregation; off it the losses are garbage, but finite garbage.
Gradients flow into `logprobs` alone. On policy (π = π_old) the gradient of each is -A ∇log π.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.algos.ratios import log_ratio, trajectory_log_ratio

LossAndClipped = tuple[Float[Array, "B T"], Bool[Array, "B T"]]


def clipped_surrogate(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> LossAndClipped:
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
    ratio = jnp.exp(log_ratio(logprobs, jax.lax.stop_gradient(old_logprobs)))
    return _pessimistic(ratio, advantages, clip_low, clip_high, dual_clip)


def gspo(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
    *,
    clip_low: float,
    clip_high: float,
) -> LossAndClipped:
    """The clipped surrogate of sₜ = sg[s] ⋅ π/sg[π], s = exp((1/|y|) Σₜ log(π/π_old)) of the trajectory.

    GSPO (2507.18071), section 4.3 (GSPO-token). |y| counts tokens in the mask, so what a tool
    wrote does not dilute s. All tokens of a trajectory are clipped together. Average with
    `sequence_mean`; epsilons are small (paper: 3e-4 and 4e-4), since s is a geometric mean.

    Args:
      logprobs: of the policy that is trained; the only argument with a gradient.
      old_logprobs: of the policy before this round of updates.
      advantages: one a token; equal on all tokens of a trajectory in the paper.
      mask: tokens that the policy wrote.
      trajectory_ids: index of each token's trajectory, -1 for none.
      num_trajectories: static upper bound of the ids.
      clip_low: ε_low.
      clip_high: ε_high.
    """
    mean = trajectory_log_ratio(
        jax.lax.stop_gradient(logprobs),
        jax.lax.stop_gradient(old_logprobs),
        mask,
        trajectory_ids,
        num_trajectories,
        is_mean=True,
    )
    # Equal to s in value; the second factor is 1 and carries each token's gradient.
    ratio = jnp.exp(mean) * jnp.exp(log_ratio(logprobs, jax.lax.stop_gradient(logprobs)))
    return _pessimistic(ratio, advantages, clip_low, clip_high, None)


def cispo(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    *,
    clip_low: float | None,
    clip_high: float,
) -> LossAndClipped:
    """Lₜ = -sg[clip(ρ, 1-ε_low, 1+ε_high)] ⋅ A ⋅ log π: the weight is clipped, no gradient is dropped.

    CISPO, MiniMax-M1 (2506.13585), section 3.1. Only the gradient means something, not the
    value. is_clipped says where the weight was clipped.

    Args:
      logprobs: of the policy that is trained; the only argument with a gradient.
      old_logprobs: of the policy before this round of updates.
      advantages: one a token.
      clip_low: ε_low, or None for no lower bound (the paper's setting).
      clip_high: ε_high.
    """
    now = logprobs.astype(jnp.float32)
    ratio = jax.lax.stop_gradient(jnp.exp(log_ratio(now, old_logprobs)))
    weight = jnp.clip(ratio, None if clip_low is None else 1.0 - clip_low, 1.0 + clip_high)
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    return -weight * advantages * now, weight != ratio


def sapo(
    logprobs: Float[Array, "B T"],
    old_logprobs: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    *,
    tau_positive: float,
    tau_negative: float,
) -> LossAndClipped:
    """Lₜ = -f(ρ) A, f(ρ) = (4/τ) σ(τ(ρ - 1)), τ by the sign of A: a soft gate in place of a clip.

    SAPO (2511.20347), the gate f. f'(1) = 1, so on policy it is the policy gradient; far from 1 the
    gate closes smoothly. Nothing is clipped: is_clipped is False everywhere.

    Args:
      logprobs: of the policy that is trained; the only argument with a gradient.
      old_logprobs: of the policy before this round of updates.
      advantages: one a token.
      tau_positive: τ where A > 0; paper: 1.
      tau_negative: τ elsewhere; paper: 1.05, so that negative updates fade sooner.
    """
    ratio = jnp.exp(log_ratio(logprobs, jax.lax.stop_gradient(old_logprobs)))
    advantages = jax.lax.stop_gradient(advantages.astype(jnp.float32))
    tau = jnp.where(advantages > 0, tau_positive, tau_negative)
    gate = 4.0 / tau * jax.nn.sigmoid(tau * (ratio - 1.0))
    return -gate * advantages, jnp.zeros(ratio.shape, bool)


def _pessimistic(
    ratio: Float[Array, "B T"],
    advantages: Float[Array, "B T"],
    clip_low: float,
    clip_high: float,
    dual_clip: float | None,
) -> LossAndClipped:
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
