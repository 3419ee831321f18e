"""Advantages of tokens from a critic: rewards of tokens, GAE that skips what tools wrote, whitening.

Plain numpy on the host, in float64: the arrays are small, the recursion is exact, and the same numbers
come out on every mesh. Rows are packed: a trajectory's tokens stand together in one row, and nothing
flows from one trajectory into another.
Everywhere V[b, t] is the value of the state in which token t was chosen, before it is written.
"""

import numpy as np
from jaxtyping import Bool, Float, Float32, Int

# Added to the variance before its root: as `core.masked.whiten`.
WHITEN_EPSILON = 1e-8


def last_token_rewards(
    rewards: Float[np.ndarray, "B T"],
    mask: Bool[np.ndarray, "B T"],
    trajectory_ids: Int[np.ndarray, "B T"],
) -> Float[np.ndarray, "B T"]:
    """The trajectory's reward on its last policy token, 0 elsewhere: an outcome comes at the end.

    Args:
      rewards: the trajectory's reward on each of its policy tokens.
      mask: tokens that the policy wrote.
      trajectory_ids: index of each token's trajectory, -1 for none.
    """
    out = np.zeros(rewards.shape, np.float64)
    for b, ids in enumerate(trajectory_ids):
        where = np.flatnonzero(mask[b])
        is_last = np.append(ids[where][1:] != ids[where][:-1], True)[: len(where)]
        out[b, where[is_last]] = rewards[b, where[is_last]]
    return out


def generalized_advantages(
    rewards: Float[np.ndarray, "B T"],
    values: Float[np.ndarray, "B T"],
    mask: Bool[np.ndarray, "B T"],
    trajectory_ids: Int[np.ndarray, "B T"],
    *,
    gamma: float,
    lam: float,
) -> tuple[Float32[np.ndarray, "B T"], Float32[np.ndarray, "B T"]]:
    """Aₜ = δₜ + γλ Aₜ₊₁, δₜ = rₜ + γ Vₜ₊₁ - Vₜ, over policy tokens only; and the returns Aₜ + Vₜ.

    GAE (1506.02438), equation 16, where t + 1 is the *next policy token* of the trajectory: what a tool
    wrote is no decision, has no value and costs no discount (verl does the same). V and A are 0 after
    the last one. Off the mask both results are 0, and values there are never read.

    Args:
      rewards: of tokens.
      values: V, by the critic before its update.
      mask: tokens that the policy wrote.
      trajectory_ids: index of each token's trajectory, -1 for none.
      gamma: discount γ per policy token, in [0, 1].
      lam: λ, in [0, 1]; 1 with γ = 1 gives A = reward to come - V.
    """
    for name, value in (("gamma", gamma), ("lam", lam)):
        if not 0 <= value <= 1:
            raise ValueError(f"{name} must be in [0, 1], got {value}")
    rows, length = values.shape
    advantages = np.zeros((rows, length), np.float64)
    next_value, next_advantage = np.zeros(rows), np.zeros(rows)
    last_ids = np.full(rows, -2)
    for t in reversed(range(length)):
        is_other = trajectory_ids[:, t] != last_ids
        next_value = np.where(is_other, 0.0, next_value)
        next_advantage = np.where(is_other, 0.0, next_advantage)
        last_ids = trajectory_ids[:, t]
        value = np.where(mask[:, t], values[:, t], 0.0).astype(np.float64)
        delta = np.where(mask[:, t], rewards[:, t], 0.0) + gamma * next_value - value
        advantage = delta + gamma * lam * next_advantage
        advantages[:, t] = np.where(mask[:, t], advantage, 0.0)
        next_value = np.where(mask[:, t], value, next_value)
        next_advantage = np.where(mask[:, t], advantage, next_advantage)
    returns = np.where(mask, advantages + np.where(mask, values, 0.0), 0.0)
    return advantages.astype(np.float32), returns.astype(np.float32)


def whitened(
    values: Float[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"]
) -> Float32[np.ndarray, "B T"]:
    """(x - mean) / √(var + 1e-8) over the tokens in the mask of the whole batch, 0 elsewhere.

    PPO's advantage normalisation, over policy tokens only. Equal to `core.masked.whiten`, on the host.
    """
    if not mask.any():
        return np.zeros(values.shape, np.float32)
    selected = values[mask].astype(np.float64)
    out = (values - selected.mean()) / np.sqrt(selected.var() + WHITEN_EPSILON)
    return np.where(mask, out, 0.0).astype(np.float32)


def explained_variance(
    values: Float[np.ndarray, "B T"],
    returns: Float[np.ndarray, "B T"],
    mask: Bool[np.ndarray, "B T"],
) -> float:
    """1 - var(R - V) / var(R) over the mask: 1 for a perfect critic, 0 for a constant one; 0 if R is constant."""
    target = returns[mask].astype(np.float64)
    spread = target.var() if target.size else 0.0
    return float(1.0 - (target - values[mask]).var() / spread) if spread > 0 else 0.0
