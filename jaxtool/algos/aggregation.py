"""Four ways to average token losses over a batch.

Rows are packed: a row of [B, T] holds several trajectories one after another and padding. Which
tokens count is said once, by the mask (True on tokens that the policy wrote). No trajectory spans two
rows or two micro-batches; the averages by trajectory rest on that.
Every function gives (sum, count): add the pairs of all micro-batches and hosts, then divide once.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jaxtool.core.masked import SumAndCount, masked_sum


def token_mean(values: Float[Array, "B T"], mask: Bool[Array, "B T"]) -> SumAndCount:
    """(Σᵢ Σₜ values, Σᵢ |yᵢ|): every token counts the same. DAPO (2503.14476), equation 12.

    Args:
      values: per token.
      mask: True where the policy wrote the token.
    """
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
    sums, counts = trajectory_sums(values, mask, trajectory_ids, num_trajectories)
    return jnp.sum(sums), jnp.sum(counts > 0, dtype=jnp.float32)


def sequence_mean(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
) -> SumAndCount:
    """(Σᵢ (1/|yᵢ|) Σₜ values, number of trajectories with |yᵢ| > 0); |yᵢ| counts tokens in the mask.

    Every trajectory counts the same. GRPO (2402.03300), equation 3; OTC-PO (2504.14870), appendix B.

    Args:
      values: per token.
      mask: True where the policy wrote the token.
      trajectory_ids: index of the trajectory of each token in [0, num_trajectories), -1 for none.
      num_trajectories: static upper bound; ids that do not occur count nothing.
    """
    sums, counts = trajectory_sums(values, mask, trajectory_ids, num_trajectories)
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
      values: per token.
      mask: True where the policy wrote the token.
      trajectory_ids: index of the trajectory of each token in [0, num_trajectories), -1 for none.
      num_trajectories: static upper bound; ids that do not occur count nothing.
      tokens: the constant, usually max_response_tokens.
    """
    total, count = sequence_sum(values, mask, trajectory_ids, num_trajectories)
    return total / tokens, count


def trajectory_sums(
    values: Float[Array, "B T"],
    mask: Bool[Array, "B T"],
    trajectory_ids: Int[Array, "B T"],
    num_trajectories: int,
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Sum of values and number of tokens in the mask, for each of n = num_trajectories.

    Args:
      values: per token.
      mask: True where the policy wrote the token.
      trajectory_ids: index of the trajectory of each token in [0, num_trajectories), -1 for none.
      num_trajectories: n, static; an id of n or more belongs to nobody.
    """
    selected = jnp.where(mask, values.astype(jnp.float32), 0.0).ravel()
    # segment_sum drops indices out of range, so -1 belongs to nobody.
    index = trajectory_ids.ravel()
    sums = jax.ops.segment_sum(selected, index, num_trajectories)
    counts = jax.ops.segment_sum(mask.ravel().astype(jnp.float32), index, num_trajectories)
    return sums, counts
