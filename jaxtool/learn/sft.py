"""Cold start: maximum likelihood of what the author wrote; interpreter tokens carry no loss."""

import dataclasses

import jax

from jaxtool.algos.aggregation import token_mean
from jaxtool.core.batch import TrainBatch
from jaxtool.learn.compile_options import learner_jit
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import (
    Gradients,
    add_gradients,
    batch_logprobs,
    check_micro_batch_rows,
    check_row_tokens,
)
from jaxtool.model.config import ModelConfig
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


def check_rows(config: SftConfig, row_tokens: int, sharding: Sharding) -> None:
    """Raises ValueError if blocks of rows of `row_tokens` tokens cannot be cut over the mesh."""
    check_micro_batch_rows(config.micro_batch_rows, sharding)
    if config.last_block_rows:
        check_micro_batch_rows(config.last_block_rows, sharding, "last_block_rows")
    check_row_tokens(row_tokens, sharding)


@learner_jit(static=("setup",), donated=("total",))
def sft_block(
    total: Gradients | None,
    params: Params,
    view: PolicyView,
    block: TrainBatch,
    count: jax.Array,
    *,
    setup: SftSetup,
) -> Gradients:
    """Adds one block's share of the loss and its gradient.

    Args:
      total: of the blocks before; None where this is the batch's only one.
      params: what is trained of the policy.
      count: trained tokens of the whole batch, what the summed loss is divided by.
    """

    def loss_of(params: Params) -> jax.Array:
        logprobs, _ = batch_logprobs(
            view.full(params),
            block,
            model=setup.model,
            temperature=1.0,
            chunk=setup.sft.lm_head_chunk,
            sharding=setup.sharding,
        )
        return token_mean(-logprobs, block.loss_mask)[0] / count

    return add_gradients(total, *jax.value_and_grad(loss_of)(params), setup.sharding)
