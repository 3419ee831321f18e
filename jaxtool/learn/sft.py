"""Cold start: maximum likelihood of what the author wrote; interpreter tokens carry no loss."""

import dataclasses
import functools

import jax

from jaxtool.algos.policy_loss import token_mean
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.state import (
    OptimizerConfig,
    PerToken,
    TrainState,
    accumulate,
    apply_gradients,
    batch_logprobs,
)
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Cross-entropy, averaged over all trained tokens of the batch."""

    micro_batches: int = 1  # gradients of this many row blocks are summed before the update
    logprob_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        if self.micro_batches < 1 or self.logprob_chunk < 1:
            raise ValueError(f"{self.micro_batches=} and {self.logprob_chunk=} must be >= 1")


@functools.partial(
    jax.jit, static_argnames=("model", "config", "optimizer", "sharding"), donate_argnames=("state",)
)
def sft_step(
    state: TrainState,
    batch: TrainBatch,
    *,
    model: ModelConfig,
    config: SftConfig,
    optimizer: OptimizerConfig,
    sharding: Sharding,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One update: L = -Σ log p(token) / number of tokens, over the loss mask."""
    count = batch.loss_mask.sum()

    def loss_of(params: Params, part: TrainBatch) -> tuple[jax.Array, PerToken]:
        logprobs, _ = batch_logprobs(
            params,
            part,
            model=model,
            temperature=1.0,
            chunk=config.logprob_chunk,
            sharding=sharding,
        )
        total, _ = token_mean(-logprobs, part.loss_mask)
        return total / count, {}

    loss, _, grads = accumulate(loss_of, state.params, batch, config.micro_batches)
    state, grad_norm = apply_gradients(state, grads, optimizer, sharding)
    return state, {"sft/loss_nats": loss, "sft/grad_norm": grad_norm, "sft/tokens": count}
