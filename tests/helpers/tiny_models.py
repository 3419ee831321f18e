"""Small policies for tests: every feature of the decoder, weights that hide nothing."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from jaxtool.model.config import ModelConfig, RopeScaling, tiny
from jaxtool.model.lora import LoraConfig, adapter_shapes
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.transformer import Params, hidden_states, logits
from jaxtool.parallel.axis_rules import Sharding

VOCAB = 48

# One config per family; head_dim differs from d_model / num_heads where the family allows it.
FAMILIES = {
    "llama": dataclasses.replace(
        tiny(VOCAB),
        ties_embeddings=False,
        rope_theta=500_000.0,
        rope_scaling=RopeScaling(
            factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position=64
        ),
    ),
    "qwen2": dataclasses.replace(tiny(VOCAB), has_qkv_bias=True, rms_norm_eps=1e-5),
    "qwen3": dataclasses.replace(
        tiny(VOCAB), has_qk_norm=True, head_dim=12, ties_embeddings=False, rope_theta=1e6
    ),
}


def random_params(config: ModelConfig, seed: int = 0) -> Params:
    """Like init_params, but biases and norms are random too, so that a swap of them shows.

    Drawn by numpy: XLA's CPU compiler takes half a second for each call of jax.random.normal.
    """
    numbers = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        return jnp.asarray(0.3 * numbers.standard_normal(leaf.shape), jnp.float32)

    return jax.tree.map(draw, param_shapes(config))


def random_adapter(config: ModelConfig, lora: LoraConfig, seed: int = 5) -> Params:
    """B is not zero, as after some updates."""
    numbers = np.random.default_rng(seed)

    def draw(leaf: jax.ShapeDtypeStruct) -> Array:
        return jnp.asarray(0.1 * numbers.standard_normal(leaf.shape), jnp.float32)

    return jax.tree.map(draw, adapter_shapes(config, lora))


def random_tokens(rows: int, length: int, seed: int = 0) -> Array:
    """[B, T] int32."""
    tokens = np.random.default_rng(seed).integers(0, VOCAB, (rows, length))
    return jnp.asarray(tokens, jnp.int32)


def positions_of(tokens: Array) -> Array:
    """[B, T] int32: each row one segment from position 0."""
    return jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32)[None], tokens.shape)


def full_logits(params: Params, config: ModelConfig, tokens: Array, sharding: Sharding) -> Array:
    """[B, T, V] float32 of rows that are one segment each."""
    ones = jnp.ones_like(tokens)
    hidden = hidden_states(params, config, tokens, positions_of(tokens), ones, sharding)
    return logits(params, config, hidden)


def next_token_loss(
    params: Params, config: ModelConfig, tokens: Array, sharding: Sharding
) -> Array:
    """Mean -log p of tokens[:, 1:]."""
    logprobs = jax.nn.log_softmax(full_logits(params, config, tokens, sharding)[:, :-1])
    return -jnp.mean(jnp.take_along_axis(logprobs, tokens[:, 1:, None], axis=-1))
