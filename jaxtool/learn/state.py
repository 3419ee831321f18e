"""TrainState, the optimizer and the forward pass that all learners share."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from jaxtool.algos.token_logprobs import token_logprobs
from jaxtool.core.batch import TrainBatch
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes
from jaxtool.model.transformer import Params, hidden_states
from jaxtool.parallel.axis_rules import Sharding


PerToken = dict[str, jax.Array]  # [B, T] each


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """AdamW with warm-up, clipped by the global norm. ReTool: constant 1e-6."""

    learning_rate: float = 1e-6
    warmup_steps: int = 0
    decay: Literal["constant", "cosine"] = "constant"
    total_steps: int = 0  # length of a cosine, warm-up included
    end_fraction: float = 0.1  # of the learning rate, where a cosine ends
    weight_decay: float = 0.0
    b1: float = 0.9
    b2: float = 0.95
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        if self.decay == "cosine" and self.total_steps <= self.warmup_steps:
            raise ValueError(f"a cosine needs {self.total_steps=} > {self.warmup_steps=}")
        if self.learning_rate <= 0 or self.max_grad_norm <= 0:
            raise ValueError(f"{self.learning_rate=} and {self.max_grad_norm=} must be > 0")

    def schedule(self) -> optax.Schedule:
        if self.decay == "cosine":
            return optax.warmup_cosine_decay_schedule(
                0.0 if self.warmup_steps else self.learning_rate,
                self.learning_rate,
                self.warmup_steps,
                self.total_steps,
                self.learning_rate * self.end_fraction,
            )
        if not self.warmup_steps:
            return optax.constant_schedule(self.learning_rate)
        return optax.linear_schedule(
            self.learning_rate / self.warmup_steps, self.learning_rate, self.warmup_steps
        )

    def optimizer(self) -> optax.GradientTransformation:
        return optax.chain(
            optax.clip_by_global_norm(self.max_grad_norm),
            optax.adamw(
                self.schedule(), b1=self.b1, b2=self.b2, weight_decay=self.weight_decay
            ),
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainState:
    """What an update changes."""

    params: Params  # float32, stacked layers
    opt_state: Any
    step: jax.Array  # [] int32, updates made


def make_state(params: Params, config: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Fresh optimizer state laid out like the parameters. The parameters are copied: updates donate."""
    return _make_state(params, config=config, sharding=sharding)


@functools.partial(jax.jit, static_argnames=("config", "sharding"))
def _make_state(params: Params, *, config: OptimizerConfig, sharding: Sharding) -> TrainState:
    state = TrainState(
        params=jax.tree.map(jnp.copy, params),
        opt_state=config.optimizer().init(params),
        step=jnp.int32(0),
    )
    return constrain_state(state, config, sharding)


def constrain_state(state: TrainState, config: OptimizerConfig, sharding: Sharding) -> TrainState:
    """Parameters and every optimizer moment laid out by the table of parameter axes."""
    if sharding.mesh.size == 1:
        return state
    shardings = sharding.tree(param_axes(state.params))
    moments = optax.tree_utils.tree_map_params(
        config.optimizer(), jax.lax.with_sharding_constraint, state.opt_state, shardings
    )
    params = jax.tree.map(jax.lax.with_sharding_constraint, state.params, shardings)
    return dataclasses.replace(state, params=params, opt_state=moments)


def batch_logprobs(
    params: Params,
    batch: TrainBatch,
    *,
    model: ModelConfig,
    temperature: float,
    chunk: int,
    sharding: Sharding,
) -> tuple[jax.Array, jax.Array]:
    """Log-probs and entropies [B, T] of a packed batch; first tokens of a segment mean nothing."""
    hidden = hidden_states(
        params, model, batch.tokens, batch.positions, batch.segment_ids, sharding
    )
    head = params["embedding"].T if model.ties_embeddings else params["lm_head"]
    return token_logprobs(hidden, head, batch.tokens, temperature=temperature, chunk=chunk)


def accumulate(
    loss_of: Callable[[Params, Any], tuple[jax.Array, PerToken]],
    params: Params,
    inputs: Any,
    count: int,
) -> tuple[jax.Array, PerToken, Params]:
    """Loss and gradient summed over `count` blocks of rows, and per-token values of all rows.

    Equals one big batch up to rounding, because `loss_of` divides by counts of the whole batch.

    Args:
      inputs: pytree of [B, T] arrays, handed to `loss_of` in blocks of B / count rows.
    """
    value_and_grad = jax.value_and_grad(loss_of, has_aux=True)
    if count == 1:
        (loss, per_token), grads = value_and_grad(params, inputs)
        return loss, per_token, grads

    def add(total: tuple[jax.Array, Params], block: Any) -> tuple[Any, PerToken]:
        (loss, per_token), grads = value_and_grad(params, block)
        return jax.tree.map(jnp.add, total, (loss, grads)), per_token

    zeros = jnp.float32(0), jax.tree.map(jnp.zeros_like, params)
    (loss, grads), stacked = jax.lax.scan(add, zeros, _split_rows(inputs, count))
    per_token = {name: x.reshape(-1, x.shape[-1]) for name, x in stacked.items()}
    return loss, per_token, grads


def _split_rows(inputs: Any, count: int) -> Any:
    """[B, T] leaves as [M, B/M, T]."""
    rows = jax.tree.leaves(inputs)[0].shape[0]
    if rows % count:
        raise ValueError(f"{rows} packed rows do not divide into {count} micro-batches")
    return jax.tree.map(lambda x: x.reshape(count, rows // count, *x.shape[1:]), inputs)


def apply_gradients(
    state: TrainState, grads: Params, config: OptimizerConfig, sharding: Sharding
) -> tuple[TrainState, jax.Array]:
    """One optimizer step; returns the gradient norm before clipping as well."""
    updates, opt_state = config.optimizer().update(grads, state.opt_state, state.params)
    state = TrainState(
        params=optax.apply_updates(state.params, updates),
        opt_state=opt_state,
        step=state.step + 1,
    )
    return constrain_state(state, config, sharding), optax.global_norm(grads)
