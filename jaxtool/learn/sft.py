"""Cold start: maximum likelihood of what the author wrote; interpreter tokens carry no loss."""

import dataclasses
import functools

import jax
import numpy as np

from jaxtool.algos.aggregation import token_mean
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.state import (
    Gradients,
    Metrics,
    TrainState,
    add_gradients,
    apply_gradients,
    batch_logprobs,
    row_blocks,
    start_of_sum,
)
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraBase, joined
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftConfig:
    """Cross-entropy, averaged over all trained tokens of the batch."""

    micro_batch_rows: int = 16  # packed rows per gradient block: the shape that is compiled
    # Of the block that ends a batch of several, where so many are enough: less padding is computed, for
    # one more program. Pays where a batch is a few blocks. None: micro_batch_rows.
    last_block_rows: int | None = None
    lm_head_chunk: int = 512  # tokens of a row whose logits exist at once

    def __post_init__(self) -> None:
        if self.micro_batch_rows < 1 or self.lm_head_chunk < 1:
            raise ValueError(f"{self.micro_batch_rows=} and {self.lm_head_chunk=} must be >= 1")
        if (
            self.last_block_rows is not None
            and not 1 <= self.last_block_rows <= self.micro_batch_rows
        ):
            raise ValueError(
                f"{self.last_block_rows=} must be in 1..micro_batch_rows={self.micro_batch_rows}, or None"
            )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftSetup:
    """What stays the same from step to step. Hashable, so jit-static."""

    model: ModelConfig
    sft: SftConfig
    optimizer: OptimizerConfig
    sharding: Sharding


def update(
    state: TrainState, batch: TrainBatch, setup: SftSetup, base: LoraBase | None = None
) -> tuple[TrainState, Metrics]:
    """One update on a host batch: L = -Σ log p(token) / number of trained tokens.

    Args:
      base: what an adapter in `state` is added to.
    """
    tokens = np.float32(batch.loss_mask.sum())
    rows, last_rows = setup.sft.micro_batch_rows, setup.sft.last_block_rows
    total = start_of_sum(state.params, batch, rows, setup.sharding)
    for block in row_blocks(batch, rows, setup.sharding, last_rows):
        total = sft_block(total, state.params, block, tokens, base, setup=setup)
    assert total is not None
    loss = total.loss
    state, grad_norm = apply_gradients(
        state, total, config=setup.optimizer, sharding=setup.sharding
    )
    return state, {"sft/loss_nats": loss, "sft/grad_norm": grad_norm}


@functools.partial(jax.jit, static_argnames=("setup",), donate_argnames=("total",))
def sft_block(
    total: Gradients | None,
    params: Params,
    block: TrainBatch,
    tokens: jax.Array,
    base: LoraBase | None,
    *,
    setup: SftSetup,
) -> Gradients:
    """Adds one block's share of the loss and its gradient.

    Args:
      total: of the blocks before; None where this is the batch's only one.
      params: what is trained: of the whole policy, or an adapter of `base`.
      tokens: trained tokens of the whole batch, what the summed loss is divided by.
    """

    def loss_of(params: Params) -> jax.Array:
        logprobs, _ = batch_logprobs(
            joined(params, base),
            block,
            model=setup.model,
            temperature=1.0,
            chunk=setup.sft.lm_head_chunk,
            sharding=setup.sharding,
        )
        return token_mean(-logprobs, block.loss_mask)[0] / tokens

    return add_gradients(total, *jax.value_and_grad(loss_of)(params), setup.sharding)
