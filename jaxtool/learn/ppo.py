"""PPO with a critic: the learner of ReTool (2504.11536, equation 1) and of OTC-PPO (2504.14870, appendix B).

The policy's loss is the one of `grpo`; what differs is where advantages come from: a critic, a tower
of its own that begins as a copy of the policy (with LoRA an adapter of the same base), values each decision, and GAE over policy tokens alone
turns the outcome reward into an advantage of each token. Order of a step: values and advantages by the
critic as it is, then the critic's update, then the policy's.

A batch comes with the trajectory's reward on each of its policy tokens, in `advantages`: what the
advantage would be with V = 0 and γ = λ = 1.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.algos import gae
from jaxtool.algos.aggregation import token_mean
from jaxtool.algos.value_loss import clipped_value_loss
from jaxtool.core.batch import TrainBatch
from jaxtool.learn import grpo
from jaxtool.learn.grpo import LearnerSetup
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.reward_kl import token_penalties
from jaxtool.learn.state import (
    Gradients,
    Metrics,
    TrainState,
    add_gradients,
    apply_gradients,
    make_state,
    row_blocks,
    start_of_sum,
)
from jaxtool.model.lora import LoraBase, joined
from jaxtool.model.transformer import Params
from jaxtool.model.value_head import token_values, with_value_head
from jaxtool.parallel.host_arrays import fetch, put


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
        for name in ("gamma", "lam"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"CriticConfig.{name}={getattr(self, name)} must be in [0, 1]")
        if self.warmup_batches < 0:
            raise ValueError(f"CriticConfig.{self.warmup_batches=} must be >= 0")
        if self.value_clip is not None and self.value_clip <= 0:
            raise ValueError(f"{self.value_clip=} must be > 0, or None")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PpoState:
    """What an update changes."""

    policy: TrainState
    critic: TrainState
    batches: jax.Array  # [] int32, rollout batches learned: the warm-up counts them


def make_ppo_state(params: Params, setup: LearnerSetup, critic: CriticConfig) -> PpoState:
    """Policy and critic begin as copies of `params`, the critic with a value head of zeros.

    With LoRA `params` is a fresh adapter, and so is then the critic, but for its head.
    """
    tower = with_value_head(params, setup.model)
    return PpoState(
        policy=make_state(params, setup.optimizer, setup.sharding),
        critic=make_state(tower, critic.optimizer, setup.sharding),
        batches=put(np.zeros((), np.int32), setup.sharding.named()),
    )


def update(
    state: PpoState,
    reference: Params | None,
    batch: TrainBatch,
    setup: LearnerSetup,
    critic: CriticConfig,
    base: LoraBase | None = None,
) -> tuple[PpoState, Metrics]:
    """All updates of one host batch whose `advantages` hold rewards (see above).

    Args:
      reference: parameters of the KL terms; None where both coefficients are 0, and with LoRA.
      base: what the adapters in `state` are added to.
    """
    batch, values, returns, metrics = _with_advantages(state, reference, batch, setup, critic, base)
    value_state, value_metrics = _update_critic(
        state.critic, batch, values, returns, setup, critic, base
    )
    if int(state.batches) < critic.warmup_batches:
        policy = state.policy
        policy_metrics = grpo.measure(policy, reference, batch, setup, base)
    else:
        policy, policy_metrics = grpo.update(state.policy, reference, batch, setup, base)
    after = PpoState(policy=policy, critic=value_state, batches=state.batches + 1)
    return after, metrics | value_metrics | policy_metrics


def _with_advantages(
    state: PpoState,
    reference: Params | None,
    batch: TrainBatch,
    setup: LearnerSetup,
    critic: CriticConfig,
    base: LoraBase | None = None,
) -> tuple[TrainBatch, np.ndarray, np.ndarray, Metrics]:
    """The batch with GAE in place of rewards; values and returns [B, T]; what the critic was worth."""
    mask, ids = np.asarray(batch.loss_mask), np.asarray(batch.trajectory_ids)
    blocks = list(row_blocks(batch, setup.grpo.micro_batch_rows, setup.sharding))
    tower = joined(state.critic.params, base)
    values = _on_host([critic_values(tower, block, setup=setup) for block in blocks], batch)
    rewards = gae.last_token_rewards(np.asarray(batch.advantages), mask, ids)
    if setup.grpo.reward_kl_coef:
        rewards = rewards - token_penalties(state.policy.params, reference, batch, setup, base)
    advantages, returns = gae.generalized_advantages(
        rewards, values, mask, ids, gamma=critic.gamma, lam=critic.lam
    )
    metrics = {
        "critic/explained_variance_fraction": gae.explained_variance(values, returns, mask),
        "critic/value_mean": float(values[mask].mean()),
        "critic/return_mean": float(returns[mask].mean()),
    }
    if critic.whitens:
        advantages = gae.whitened(advantages, mask)
    batch = dataclasses.replace(batch, advantages=advantages)
    return batch, values, returns, {k: jnp.float32(v) for k, v in metrics.items()}


def _on_host(blocks: list[jax.Array], batch: TrainBatch) -> np.ndarray:
    """[B, T] of the batch from its padded blocks."""
    return np.concatenate([fetch(block) for block in blocks])[: batch.shape[0]]


def _update_critic(
    state: TrainState,
    batch: TrainBatch,
    values: np.ndarray,
    returns: np.ndarray,
    setup: LearnerSetup,
    critic: CriticConfig,
    base: LoraBase | None,
) -> tuple[TrainState, Metrics]:
    """One update a mini-batch, strided as the policy's are; the metrics are those of the first."""
    parts = min(setup.grpo.updates_per_batch, batch.shape[0])
    first: Metrics = {}
    for part in range(parts):
        mini, mini_values, mini_returns = jax.tree.map(
            lambda x: x[part::parts],  # noqa: B023
            (batch, values, returns),
        )
        if not mini.loss_mask.any():
            continue
        tokens = float(mini.loss_mask.sum())
        total = start_of_sum(state.params, mini, setup.grpo.micro_batch_rows, setup.sharding)
        num_clipped: Any = 0.0
        blocks = row_blocks(mini, setup.grpo.micro_batch_rows, setup.sharding)
        for i, block in enumerate(blocks):
            targets = [_block_of(array, i, setup) for array in (mini_values, mini_returns)]
            args = (total, state.params, block, *targets, np.float32(tokens), base)
            total, clipped = critic_block(*args, setup=setup, critic=critic)
            num_clipped = num_clipped + clipped
        assert total is not None
        loss = total.loss
        state, norm = apply_gradients(
            state, total, config=critic.optimizer, sharding=setup.sharding
        )
        first = first or {
            "critic/loss": loss,
            "critic/grad_norm": norm,
            "critic/clipped_fraction": num_clipped / tokens,
        }
    return state, first


def _block_of(array: np.ndarray, index: int, setup: LearnerSetup) -> jax.Array:
    """Rows of block `index` on the device, filled up with zeros as the block is."""
    rows = setup.grpo.micro_batch_rows
    block = array[index * rows : (index + 1) * rows]
    block = np.pad(block, ((0, rows - block.shape[0]), (0, 0)))
    return put(block, setup.sharding.named("batch", "length"))


@functools.partial(jax.jit, static_argnames=("setup",))
def critic_values(params: Params, block: TrainBatch, *, setup: LearnerSetup) -> jax.Array:
    """V [B, T] of a block."""
    return token_values(
        params, setup.model, block.tokens, block.positions, block.segment_ids, setup.sharding
    )


@functools.partial(jax.jit, static_argnames=("setup", "critic"), donate_argnames=("total",))
def critic_block(
    total: Gradients | None,
    params: Params,
    block: TrainBatch,
    old_values: jax.Array,
    returns: jax.Array,
    count: jax.Array,
    base: LoraBase | None = None,
    *,
    setup: LearnerSetup,
    critic: CriticConfig,
) -> tuple[Gradients, jax.Array]:
    """Adds one block's share of the value loss and its gradient; returns how many tokens were clipped.

    Args:
      count: policy tokens of the whole (mini-)batch, what the summed loss is divided by.
    """

    def loss_of(params: Params) -> tuple[jax.Array, jax.Array]:
        values = critic_values(joined(params, base), block, setup=setup)
        loss, is_clipped = clipped_value_loss(values, old_values, returns, clip=critic.value_clip)
        clipped = token_mean(is_clipped.astype(jnp.float32), block.loss_mask)[0]
        return token_mean(loss, block.loss_mask)[0] / count, clipped

    (loss, clipped), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
    return add_gradients(total, loss, grads, setup.sharding), clipped
