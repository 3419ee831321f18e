"""TrainState, gradients summed over blocks of rows, and the forward pass that all learners share.

A batch has as many packed rows as it needs; it is learned in blocks of a fixed number of rows, so the
same two programs (block, apply) serve every batch and nothing is compiled after the first.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxtool.core.batch import NO_TRAJECTORY, TrainBatch
from jaxtool.core.truncation import Truncation
from jaxtool.learn.layout import constrain_like, dividing
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes
from jaxtool.model.token_logprobs import token_logprobs
from jaxtool.model.transformer import Params, hidden_states
from jaxtool.parallel.axis_rules import Sharding, is_axes
from jaxtool.parallel.host_arrays import put

Metrics = dict[str, jax.Array]
# From so many words on, logits of tokens without a loss are left out: sorting tokens costs less.
_SPARSE_VOCABULARY = 1024


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """What an update changes."""

    params: Params  # float32, stacked layers; with LoRA the adapter alone
    opt_state: Any
    step: jax.Array  # [] int32, updates made


@functools.partial(jax.jit, static_argnames=("config", "sharding"))
def make_state(params: Params, config: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Fresh optimizer state, laid out like the parameters, which are copied: updates donate them."""
    return constrain_state(
        TrainState(
            params=jax.tree.map(jnp.copy, params),
            opt_state=config.optimizer().init(params),
            step=jnp.int32(0),
        ),
        sharding,
    )


def constrain_state(state: TrainState, sharding: Sharding) -> TrainState:
    """Parameters and every optimizer moment laid out by the table of parameter axes."""
    return TrainState(
        params=constrain_like(state.params, state.params, sharding),
        opt_state=constrain_like(state.opt_state, state.params, sharding.of_state),
        step=state.step,
    )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gradients:
    """Loss and gradient summed over the blocks seen so far."""

    loss: jax.Array  # [] float32
    grads: Params


def start_of_sum(params: Params, num_blocks: int, sharding: Sharding) -> Gradients | None:
    """What the first of `num_blocks` micro-batches is added to: zeros, or nothing if it is the only one."""
    return zero_gradients(params, sharding) if num_blocks > 1 else None


@functools.partial(jax.jit, static_argnames=("sharding",))
def zero_gradients(params: Params, sharding: Sharding) -> Gradients:
    """Laid out like the optimizer state: zeros take no layout from parameters, every device would hold all.

    Also on a single device, where sums with a first block are laid out: a block that is added to zeros
    without a layout would be a program of its own.
    """
    zeros = _laid_out(jax.tree.map(jnp.zeros_like, params), sharding)
    return Gradients(loss=jnp.float32(0), grads=zeros)


def add_gradients(
    total: Gradients | None, loss: jax.Array, grads: Params, sharding: Sharding
) -> Gradients:
    """`total` and one block's share; without a total the share alone, laid out as the sum would be."""
    if total is None:
        return Gradients(loss=loss, grads=_laid_out(grads, sharding))
    if sharding.rules.optimizer_embed is not None:  # each replica adds up a part of its own
        grads = _laid_out(grads, sharding)
    return Gradients(loss=total.loss + loss, grads=jax.tree.map(jnp.add, total.grads, grads))


def _laid_out(grads: Params, sharding: Sharding) -> Params:
    on = sharding.of_state
    return jax.tree.map(
        lambda axes, x: jax.lax.with_sharding_constraint(x, on.named(*dividing(axes, x.shape, on))),
        param_axes(grads),
        grads,
        is_leaf=is_axes,
    )


@functools.partial(jax.jit, static_argnames=("config", "sharding"), donate_argnames=("state",))
def apply_gradients(
    state: TrainState, total: Gradients, *, config: OptimizerConfig, sharding: Sharding
) -> tuple[TrainState, jax.Array, jax.Array]:
    """One optimizer step, or none where the loss or the gradient is not finite: the state stays.

    Returns:
      The state, the gradient's norm before clipping, and 1 where the step was skipped, else 0 (float32).
    """
    norm = optax.tree.norm(total.grads)
    is_finite = jnp.isfinite(total.loss) & jnp.isfinite(norm)

    def updated(state: TrainState, grads: Params) -> TrainState:
        updates, opt_state = config.optimizer().update(grads, state.opt_state, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        after = TrainState(params=params, opt_state=opt_state, step=state.step + 1)
        return constrain_state(after, sharding)

    # A branch, and no choice number by number: with `jnp.where` the old moments would have to stay until
    # the parameters are done (AdamW: 0.75 times the parameters more).
    state = jax.lax.cond(is_finite, updated, lambda state, _: state, state, total.grads)
    return constrain_state(state, sharding), norm, 1.0 - is_finite.astype(jnp.float32)


def batch_logprobs(
    params: Params,
    batch: TrainBatch,
    *,
    model: ModelConfig,
    temperature: float,
    chunk: int,
    sharding: Sharding,
    truncation: Truncation | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies [B, T] of packed rows; those of tokens without a loss mean nothing."""
    hidden = hidden_states(
        *(params, model, batch.tokens, batch.positions, batch.segment_ids, sharding),
        prefix_ids=batch.prefix_ids,
    )
    return token_logprobs(
        sharding.constrain(hidden, "batch", "queries", None),
        params["embedding"] if model.ties_embeddings else params["lm_head"],
        batch.tokens,
        temperature=temperature,
        chunk=chunk,
        is_table=model.ties_embeddings,
        truncation=truncation,
        parts=sharding.parts("queries"),
        shards=sharding.parts("batch"),
        sharding=sharding,
        wanted=batch.loss_mask if model.vocab_size >= _SPARSE_VOCABULARY else None,
    )


def check_micro_batch_rows(rows: int, sharding: Sharding, name: str = "micro_batch_rows") -> None:
    """Raises ValueError if a gradient block cannot be cut over the mesh."""
    cut = sharding.parts("batch")
    if rows % cut:
        raise ValueError(
            f"{name}={rows} does not divide over {' x '.join(sharding.rules.batch)} = {cut} devices: "
            f"make it a multiple of {cut}"
        )


def check_row_tokens(tokens: int, sharding: Sharding) -> None:
    """Raises ValueError if rows of `tokens` tokens cannot be cut over the mesh."""
    if sharding.parts("queries") > 1 and "context" not in sharding.rules.length:
        raise ValueError(
            f"MeshConfig.context > 1 cuts rows, AxisRules.length={sharding.rules.length} does not: "
            'put "context" first in it'
        )
    cut = math.lcm(sharding.parts("length"), sharding.parts("queries"))
    if tokens % cut:
        axes = " x ".join(sharding.rules.length)
        raise ValueError(
            f"PackConfig.row_tokens={tokens} does not divide over {axes} = {cut} devices: "
            f"make it a multiple of {cut}"
        )


def row_blocks(
    batch: TrainBatch, rows: int, sharding: Sharding, last_rows: int | None = None
) -> Iterator[TrainBatch]:
    """The batch on the device in blocks of `rows` rows, the last one filled up with padding.

    Every host has the whole batch in its memory, and copies to its devices the rows that they hold.

    Args:
      last_rows: of the last of several blocks, where so many are enough.
    """
    check_micro_batch_rows(rows, sharding)
    check_row_tokens(batch.shape[1], sharding)
    placed = sharding.named("batch", "length")
    for begin in range(0, batch.shape[0], rows):
        block = jax.tree.map(lambda x: x[begin : begin + rows], batch)  # noqa: B023
        size = rows
        if last_rows is not None and begin > 0 and block.shape[0] <= last_rows:
            size = last_rows
        yield put(_pad_rows(block, size), placed)


def _pad_rows(batch: TrainBatch, rows: int) -> TrainBatch:
    missing = rows - batch.shape[0]
    if not missing:
        return batch

    def pad(x: np.ndarray, value: int) -> np.ndarray:
        return np.pad(x, ((0, missing), (0, 0)), constant_values=value)

    padded = jax.tree.map(lambda x: pad(x, 0), batch)
    return dataclasses.replace(
        padded, trajectory_ids=pad(np.asarray(batch.trajectory_ids), NO_TRAJECTORY)
    )
