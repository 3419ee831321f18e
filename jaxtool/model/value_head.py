"""A critic: the policy's tower with one number per token in place of the LM head."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params, hidden_states
from jaxtool.parallel.axis_rules import Sharding


def with_value_head(params: Params, config: ModelConfig) -> Params:
    """The tower of a policy with a value head of zeros: it begins as V = 0 everywhere."""
    tower = {name: leaf for name, leaf in params.items() if name != "lm_head"}
    return tower | {"value_head": jnp.zeros((config.d_model,), jnp.float32)}


def token_values(
    params: Params,
    config: ModelConfig,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    sharding: Sharding,
    prefix_ids: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T"]:
    """V(s_t), s_t what precedes token t, float32: as log-probs, so that both speak of one decision.

    Column 0 is 0, and what stands at a segment's first token means nothing.
    """
    hidden = hidden_states(params, config, tokens, positions, segment_ids, sharding, prefix_ids)
    values = jnp.einsum(
        "btd,d->bt",
        hidden[:, :-1],
        params["value_head"].astype(hidden.dtype),
        preferred_element_type=jnp.float32,
    )
    return jax.lax.pad(values, jnp.float32(0), ((0, 0, 0), (1, 0, 0)))
