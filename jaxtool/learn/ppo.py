"""The critic of PPO: the learner of ReTool (2504.11536, equation 1) and of OTC-PPO (2504.14870, appendix B).

A tower of its own that begins as a copy of the policy (with LoRA as an adapter of the same frozen policy)
values each decision. What it is used for is in `ppo_learner`.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxtool.algos.aggregation import token_mean
from jaxtool.algos.value_loss import clipped_value_loss
from jaxtool.core.batch import TrainBatch
from jaxtool.core.ranges import check_range
from jaxtool.learn.compile_options import learner_jit
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.state import Gradients, add_gradients
from jaxtool.model.transformer import Params
from jaxtool.model.value_head import token_values


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticConfig:
    """The critic and the advantages it makes. Row blocks and mini-batches are those of GrpoConfig."""

    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(learning_rate=2e-6)  # verl's ReTool recipe
    )
    gamma: float = 1.0  # discount per policy token
    lam: float = 1.0  # λ of GAE; with γ = 1 the advantage is the reward minus the value
    value_clip: float | None = 0.5  # ε of the value loss, in units of the reward; verl
    warmup_batches: int = 20  # rollout batches before the policy moves; verl's ReTool recipe
    whitens: bool = True  # advantages over the policy tokens of the batch

    def __post_init__(self) -> None:
        check_range(self, "gamma", "lam", least=0, most=1)
        check_range(self, "warmup_batches", least=0)
        check_range(self, "value_clip", above=0)


@learner_jit(static=("setup",))
def critic_values(params: Params, block: TrainBatch, *, setup: LearnerSetup) -> jax.Array:
    """V [B, T] of a block."""
    return token_values(
        *(params, setup.model, block.tokens, block.positions, block.segment_ids, setup.sharding),
        prefix_ids=block.prefix_ids,
    )


@learner_jit(static=("setup", "critic"), donated=("total",))
def critic_block(
    total: Gradients | None,
    params: Params,
    view: PolicyView,
    block: TrainBatch,
    old_values: jax.Array,
    returns: jax.Array,
    count: jax.Array,
    *,
    setup: LearnerSetup,
    critic: CriticConfig,
) -> tuple[Gradients, jax.Array]:
    """Adds one block's share of the value loss and its gradient; returns how many tokens were clipped.

    Args:
      count: policy tokens of the whole (mini-)batch, what the summed loss is divided by.
    """

    def loss_of(params: Params) -> tuple[jax.Array, jax.Array]:
        values = critic_values(view.full(params), block, setup=setup)
        loss, is_clipped = clipped_value_loss(values, old_values, returns, clip=critic.value_clip)
        clipped = token_mean(is_clipped.astype(jnp.float32), block.loss_mask)[0]
        return token_mean(loss, block.loss_mask)[0] / count, clipped

    (loss, clipped), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return add_gradients(total, loss, grads, setup.sharding), clipped
