"""The learner's programs: gradient blocks, updates, old log-probs, with PPO the critic's."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.config.callables import callable_name
from jaxtool.learn import grpo, ppo
from jaxtool.learn.grpo import LearnerSetup, needs_reference
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.state import apply_gradients, make_state, zero_gradients
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraBase, LoraConfig, adapter_shapes, joined
from jaxtool.model.param_axes import param_axes
from jaxtool.model.value_head import with_value_head
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.plan.program import (
    APPLY,
    CRITIC,
    CRITIC_APPLY,
    LEARN,
    OLD,
    VALUES,
    Program,
    placed,
    results,
    shard_bytes,
)
from jaxtool.rollout.batching import empty_batch
from jaxtool.train.numerics import learner_setup
from jaxtool.train.rl_config import RlConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerPrograms:
    """Programs of the learner, and the bytes per device of what it keeps."""

    programs: tuple[Program, ...]
    policy: Any  # shapes of the parameters that are published, adapters and base joined
    resident: dict[str, float]
    held: tuple[str, ...]  # of `resident`: what is in memory while the decoder works


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tower:
    """Shapes of something trained: the policy, or the critic."""

    params: Any
    state: Any
    gradients: Any

    @property
    def optimizer_bytes(self) -> float:
        return shard_bytes(self.state) - shard_bytes(self.params)


def learner_programs(config: RlConfig, sharding: Sharding, params: Any) -> LearnerPrograms:
    """What one update of a run compiles, at its largest shapes.

    Args:
      params: shapes of the policy's parameters, float32, with the learner's layout.
    """
    model = config.policy.model_config()
    trained, base = trained_shapes(params, model, config.lora, sharding)
    keeps_reference = base is None and needs_reference(config.grpo)
    policy = tower_of(trained, config.optimizer, sharding)
    joint = joined(trained, base)
    resident = {
        "parameters": shard_bytes(joint),
        "optimizer state": policy.optimizer_bytes,
        "reference": shard_bytes(params) if keeps_reference else 0.0,
        "gradients": shard_bytes(policy.gradients),
    }
    critic = None
    if config.critic is not None:
        with_head = jax.eval_shape(lambda tree: with_value_head(tree, model), trained)
        tree = placed(with_head, sharding.tree(param_axes(with_head)))
        critic = tower_of(tree, config.critic.optimizer, sharding)
        resident |= {
            "critic": shard_bytes(tree),
            "critic optimizer state": critic.optimizer_bytes,
        }
    held = tuple(name for name in resident if name != "gradients")  # exist in an update alone
    parts = _Parts(config=config, sharding=sharding, base=base, held=held)
    programs = parts.of_policy(policy, trained if keeps_reference else None)
    if critic is not None:
        assert config.critic is not None
        programs += parts.of_critic(critic, config.critic)
    return LearnerPrograms(programs=programs, policy=joint, resident=resident, held=held)


def tower_of(params: Any, optimizer: OptimizerConfig, sharding: Sharding) -> Tower:
    return Tower(
        params=params,
        state=results(sharding, make_state, params, optimizer, sharding),
        gradients=results(sharding, zero_gradients, params, sharding),
    )


def trained_shapes(
    params: Any, model: ModelConfig, lora: LoraConfig | None, sharding: Sharding
) -> tuple[Any, LoraBase | None]:
    """`lora.trained_part` of shapes."""
    if lora is None:
        return params, None
    frozen = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, lora.base_dtype, sharding=x.sharding), params
    )
    shapes = adapter_shapes(model, lora)
    adapter = placed(shapes, sharding.tree(param_axes(shapes)))
    return adapter, LoraBase(params=frozen, config=lora)


def block_shapes(rows: int, length: int, sharding: Sharding) -> Any:
    """A TrainBatch of a gradient block, as it lies on the devices."""
    layout = sharding.named("batch", "length")
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout), empty_batch(rows, length)
    )


def update_program(
    name: str,
    tower: Tower,
    optimizer: OptimizerConfig,
    sharding: Sharding,
    *,
    beside: tuple[str, ...],
) -> Program:
    """The optimizer's step. `beside`: what else is in memory, as in Program."""
    return Program(
        name=name,
        shape=callable_name(optimizer.rule).rpartition(".")[2],
        trace=lambda: apply_gradients.trace(
            tower.state, tower.gradients, config=optimizer, sharding=sharding
        ),
        num_devices=sharding.mesh.size,
        beside=beside,
    )


def logit_chunks(length: int, chunk: int, sharding: Sharding) -> int:
    """Chunks of logits in a row: as many as if the loss counted every token of it."""
    return -(-length // sharding.parts("queries") // chunk)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """Makes programs: what all of them share."""

    config: RlConfig
    sharding: Sharding
    base: LoraBase | None
    held: tuple[str, ...]

    @property
    def setup(self) -> LearnerSetup:
        return learner_setup(self.config, self.config.policy.model_config(), self.sharding)

    def of_policy(self, policy: Tower, reference: Any) -> tuple[Program, ...]:
        grpo_config, setup, base = self.config.grpo, self.setup, self.base
        block, tokens = self._block()
        needs_old = grpo_config.updates_per_batch > 1 and grpo_config.old_policy == "learner"
        old = tokens if needs_old else None
        length = self.config.pack.row_tokens
        chunks = logit_chunks(length, grpo_config.lm_head_chunk, self.sharding)
        # With LoRA the base is an argument of gradient blocks alone.
        own = ("parameters",) if base is None else ()
        programs = (
            self._program(
                LEARN,
                lambda: grpo.grpo_block.trace(
                    policy.gradients,
                    policy.params,
                    reference,
                    block,
                    old,
                    np.float32(1),
                    base,
                    setup=setup,
                ),
                arguments=("parameters", "reference"),
                while_trips=chunks,
            ),
            self._apply(APPLY, policy, self.config.optimizer, (*own, "optimizer state")),
        )
        if needs_old or grpo_config.reward_kl_coef:
            trace = lambda: grpo.old_logprobs.trace(  # noqa: E731
                joined(policy.params, base), block, setup=setup
            )
            arguments = ("parameters",)
            programs += (self._program(OLD, trace, arguments=arguments, while_trips=chunks),)
        return programs

    def of_critic(self, critic: Tower, config: CriticConfig) -> tuple[Program, ...]:
        setup, base = self.setup, self.base
        block, tokens = self._block()
        # With LoRA its base is an argument of both, and nearly all of "parameters".
        arguments = ("critic",) if base is None else ("critic", "parameters")
        return (
            self._program(
                VALUES,
                lambda: ppo.critic_values.trace(joined(critic.params, base), block, setup=setup),
                arguments=arguments,
            ),
            self._program(
                CRITIC,
                lambda: ppo.critic_block.trace(
                    critic.gradients,
                    critic.params,
                    block,
                    tokens,
                    tokens,
                    np.float32(1),
                    base,
                    setup=setup,
                    critic=config,
                ),
                arguments=arguments,
            ),
            self._apply(
                CRITIC_APPLY, critic, config.optimizer, ("critic", "critic optimizer state")
            ),
        )

    def _apply(
        self, name: str, tower: Tower, optimizer: OptimizerConfig, arguments: tuple[str, ...]
    ) -> Program:
        return update_program(name, tower, optimizer, self.sharding, beside=self._beside(arguments))

    def _program(
        self,
        name: str,
        trace: Callable[[], Any],
        *,
        arguments: tuple[str, ...],
        while_trips: int = 1,
    ) -> Program:
        config = self.config
        return Program(
            name=name,
            shape=f"{config.grpo.micro_batch_rows} rows x {config.pack.row_tokens} tokens",
            trace=trace,
            while_trips=while_trips,
            num_devices=self.sharding.mesh.size,
            beside=self._beside(arguments),
        )

    def _beside(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """`arguments`: what of `held` a program gets, so that it is not counted twice."""
        rest = () if self.config.unloads_decoder else ("published copy", "KV cache")
        return (*(part for part in self.held if part not in arguments), *rest)

    def _block(self) -> tuple[Any, Any]:
        """Shapes of a block of rows, and of one number a token of it."""
        rows, length = self.config.grpo.micro_batch_rows, self.config.pack.row_tokens
        tokens = jax.ShapeDtypeStruct(
            (rows, length), jnp.float32, sharding=self.sharding.named("batch", "length")
        )
        return block_shapes(rows, length, self.sharding), tokens
