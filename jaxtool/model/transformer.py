"""The policy: one block definition used by training (packed rows) and by decoding (KV cache).

Parameters are a plain dict pytree, float32:
  embedding [V, D]; layers/<module>/<name> [L, ...] stacked; final_norm [D]; lm_head [D, V] if untied.
Functions take it and return arrays; nothing is hidden in a module. `unstack_layers` makes the
same tree with `layers` as a tuple, so that no decode step slices a weight out of a stack.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from jaxtool.model.attention_backends import (
    attend_to_cache,
    kernel_writes_scales,
    needs_no_view,
    training_attention,
    write_and_attend,
    writes_by_select,
)
from jaxtool.model.config import ModelConfig
from jaxtool.model.cut_table import looked_up, looked_up_in_parts
from jaxtool.model.kv_cache import KVCache, LayerCache, view_rows, write
from jaxtool.model.layers import (
    AttentionProjections,
    GatedMlp,
    RMSNorm,
    in_both_halves,
    rms_norm,
    rotary_angles,
)
from jaxtool.model.paged_attention import write_and_attend_to_pages
from jaxtool.model.quantize import Int8Weight, product
from jaxtool.model.remat import keep, rematerialized
from jaxtool.parallel.axis_rules import Sharding

Params = dict[str, Any]
Attend = Callable[[Array, Array, Array], tuple[Array, LayerCache | None]]


class Block(nnx.Module):
    """Pre-norm attention and feed-forward; `attend` says over what the queries look."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        self.attention_norm = RMSNorm(config.d_model, config.rms_norm_eps)
        self.attention = AttentionProjections(config, rngs=rngs)
        self.mlp_norm = RMSNorm(config.d_model, config.rms_norm_eps)
        self.mlp = GatedMlp(config, rngs=rngs)

    def __call__(
        self, x: Array, rotary: tuple[Array, Array], attend: Attend, sharding: Sharding
    ) -> tuple[Array, LayerCache | None]:
        q, k, v = self.attention.project(_whole_rows(self.attention_norm(x), sharding), rotary)
        out, kept = attend(q, k, v)
        x = keep(x + _parts_of_rows(self.attention.output(out), sharding))
        hidden = self.mlp.hidden(_whole_rows(self.mlp_norm(x), sharding))
        hidden = sharding.constrain(hidden, "batch", "queries", "mlp")
        return x + _parts_of_rows(self.mlp.down(hidden), sharding), kept


def _whole_rows(x: Array, sharding: Sharding) -> Array:
    """What products read: with all tokens of the row, but for MeshConfig.context's parts.

    Without it XLA may leave the tokens sharded over the tensor axis, where `AxisRules.length` has it. Then it
    gathers whole weights, and adds up whole gradients of them over all devices.
    """
    return sharding.constrain(x, "batch", "queries", None)


def _parts_of_rows(x: Array, sharding: Sharding) -> Array:
    """What is added to the residual stream, in its layout: sums over devices then go to their parts alone."""
    return sharding.constrain(x, "batch", "length", "activation_embed")


def init_params(config: ModelConfig, key: jax.Array) -> Params:
    """Random parameters, float32. Pure: jit it with out_shardings to make them in place."""
    embedding_key, layers_key, head_key = jax.random.split(key, 3)

    def layer(layer_key: jax.Array) -> dict[str, Any]:
        block = Block(config, rngs=nnx.Rngs(params=layer_key))
        return nnx.to_pure_dict(nnx.split(block)[1])

    shape = (config.vocab_size, config.d_model)
    params: Params = {
        "embedding": config.d_model**-0.5 * jax.random.normal(embedding_key, shape, jnp.float32),
        "layers": jax.vmap(layer)(jax.random.split(layers_key, config.num_layers)),
        "final_norm": jnp.ones((config.d_model,), jnp.float32),
    }
    if not config.ties_embeddings:
        params["lm_head"] = config.d_model**-0.5 * jax.random.normal(head_key, shape[::-1])
    return params


def hidden_states(
    params: Params,
    config: ModelConfig,
    tokens: Int[Array, "B T"],
    positions: Int[Array, "B T"],
    segment_ids: Int[Array, "B T"],
    sharding: Sharding,
    prefix_ids: Int[Array, "B T"] | None = None,
) -> Float[Array, "B T D"]:
    """Last hidden states of packed rows, normalised, in the compute dtype.

    Args:
      prefix_ids: as for `segment_mask`: prompts that stand once for several segments.
    """
    cos, sin = _angles(positions, config, sharding)
    rotary = _whole_rows(cos, sharding), _whole_rows(sin, sharding)
    attend_rows = training_attention(config, segment_ids, positions, sharding, prefix_ids)

    def attend(q: Array, k: Array, v: Array) -> tuple[Array, None]:
        # Whole rows of some heads, also where the residual stream is sharded over the row; with
        # MeshConfig.context the queries of a part of it.
        q = sharding.constrain(q, "batch", "queries", "heads", None)
        k, v = (sharding.constrain(x, "batch", None, "kv_heads", None) for x in (k, v))
        return attend_rows(q, k, v), None

    def run_layer(x: Array, layer_params: Any) -> tuple[Array, None]:
        x, _ = _merge_block(config, layer_params)(x, rotary, attend, sharding)
        return sharding.constrain(x, "batch", "length", "activation_embed"), None

    layer = rematerialized(run_layer, config.remat)
    x = _embed(params, config, tokens, sharding)
    if config.scans_layers:
        x, _ = jax.lax.scan(layer, x, params["layers"])
    else:
        for layer_params in unstack_layers(params)["layers"]:
            x, _ = layer(x, layer_params)
    return rms_norm(x, params["final_norm"], config.rms_norm_eps)


def _angles(positions: Array, config: ModelConfig, sharding: Sharding) -> tuple[Array, Array]:
    """`rotary_angles`, as `rotate` takes them on this platform."""
    angles = rotary_angles(positions, config)
    is_tpu = sharding.mesh.devices.flat[0].platform == "tpu"
    return in_both_halves(angles) if is_tpu else angles


def cached_hidden_states(
    params: Params,
    config: ModelConfig,
    tokens: Int[Array, "B C"],
    positions: Int[Array, "B C"],
    cache: KVCache,
    *,
    view: int,
    sharding: Sharding,
    rows: Int[Array, " B"] | None = None,
    table: Int[Array, "B n"] | None = None,
    attends_apart: bool = False,
) -> tuple[Float[Array, "B C D"], KVCache]:
    """Runs C new tokens per row, writing their keys and values at `positions` of the cache.

    Args:
      params: with unstacked layers.
      positions: absolute index of each token in its row; indices >= S are not written.
      view: attention reads cache positions 0..view-1 only; must exceed every live position.
      rows: the cache's row of each row of tokens; one out of range is not written. They are copied out
        for attention layer by layer: all layers at once took as much memory as their part of the cache.
        None: all rows, in place.
      table: the cache is a pool of pages, and these are the rows' (`paged_attention`); `view` and `rows` are
        not read then.
      attends_apart: each of the C columns attends by itself, in the shape and so with the rounding of C = 1;
        not over pages.

    Returns:
      Last hidden states and the cache with the new tokens in it.
    """
    rotary = _angles(positions, config, sharding)
    x = _embed_cached(params, config, tokens, sharding)
    layers: list[LayerCache] = []
    for layer_params, layer_cache in zip(params["layers"], cache, strict=True):

        def attend(
            q: Array, k: Array, v: Array, layer_cache: LayerCache = layer_cache
        ) -> tuple[Array, LayerCache]:
            if table is not None:
                return write_and_attend_to_pages(
                    q, k, v, layer_cache, positions, table, config, sharding
                )
            is_whole = rows is None
            if is_whole and kernel_writes_scales(layer_cache, q.shape[1], view, config, sharding):
                return write_and_attend(q, k, v, layer_cache, positions, sharding)
            selects = writes_by_select(q.shape[1], layer_cache, sharding)
            updated = write(layer_cache, k, v, positions, rows, selects=selects)
            if rows is not None:
                seen = view_rows(updated, rows, view)
            elif needs_no_view(updated.k.shape[2], config, sharding):
                seen = updated
            else:
                seen = updated.view(view)
            if not attends_apart:
                return attend_to_cache(q, seen, positions, config, sharding), updated
            columns = zip(
                jnp.split(q, q.shape[1], 1), jnp.split(positions, q.shape[1], 1), strict=True
            )
            parts = [attend_to_cache(one, seen, at, config, sharding) for one, at in columns]
            return jnp.concatenate(parts, axis=1), updated

        x, updated = _merge_block(config, layer_params)(x, rotary, attend, sharding)
        x = sharding.constrain(x, "batch", "length", "activation_embed")
        assert updated is not None
        layers.append(updated)
    return rms_norm(x, params["final_norm"], config.rms_norm_eps), tuple(layers)


def logits(
    params: Params, config: ModelConfig, hidden: Float[Array, "*R D"]
) -> Float[Array, "*R V"]:
    """Scores of the next token, float32."""
    if not config.ties_embeddings:
        return product(hidden, params["lm_head"], 1)
    table = params["embedding"]
    if isinstance(table, Int8Weight):
        return product(hidden, Int8Weight(table.values.T, table.scale), 1)
    return product(hidden, table.T, 1)


def unstack_layers(params: Params) -> Params:
    """The same tree with `layers` as a tuple: no weight is sliced out of a stack in a decode step."""
    stacked = params["layers"]
    count = jax.tree.leaves(stacked)[0].shape[0]
    leaves, tree = jax.tree.flatten(stacked)
    sliced: list[Any] = [_slices(x, count) for x in leaves]
    layers = tuple(jax.tree.unflatten(tree, [x[i] for x in sliced]) for i in range(count))
    return params | {"layers": layers}


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _slices(x: Array, count: int) -> tuple[Array, ...]:
    """x[0], x[1], .. The gradient is one stack; autodiff adds up as many zero-padded arrays of x's size."""
    return tuple(x[i] for i in range(count))


_slices.defvjp(lambda x, count: (_slices(x, count), None), lambda _, __, dy: (jnp.stack(dy),))


def _embed(params: Params, config: ModelConfig, tokens: Array, sharding: Sharding) -> Array:
    # Gathered whole before the lookup: a lookup in a sharded table makes XLA rematerialise it.
    # Its gradient is cut as the table is.
    table = sharding.constrain(params["embedding"], "vocab", "embed").astype(config.dtype)
    # Gathered by words alone, whose parts lie one after the other: by words and width it would be laid out anew.
    words = sharding.rules.vocab + sharding.rules.embed
    if len(table) % math.prod(sharding.mesh.shape[axis] for axis in words) == 0:
        by_words = NamedSharding(sharding.mesh, PartitionSpec(words, None))
        table = jax.lax.with_sharding_constraint(table, by_words)
    table = sharding.constrain(table, None, None)
    x = looked_up(table, tokens, config.dtype)
    return sharding.constrain(x, "batch", "length", "activation_embed")


def _embed_cached(params: Params, config: ModelConfig, tokens: Array, sharding: Sharding) -> Array:
    table = params["embedding"]
    if sharding.parts("vocab") == 1:
        x = looked_up(table, tokens, config.dtype)
    else:
        x = looked_up_in_parts(table, tokens, config.dtype, sharding)
    return sharding.constrain(x, "batch", "length", "activation_embed")


@functools.lru_cache(maxsize=16)
def _block_graph(config: ModelConfig) -> nnx.GraphDef:
    return nnx.graphdef(nnx.eval_shape(lambda: Block(config, rngs=nnx.Rngs(params=0))))


def _merge_block(config: ModelConfig, layer_params: Any) -> Block:
    return nnx.merge(_block_graph(config), nnx.State(layer_params))
