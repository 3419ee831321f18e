"""The learner's programs: gradient blocks, updates, old log-probs, with PPO the critic's."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.config.callables import callable_name
from jaxtool.learn.compile_options import options_for
from jaxtool.learn.grpo import LearnerSetup, OldLogprobs, needs_old_logprobs, needs_reference
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import PolicyView
from jaxtool.learn.ppo import CriticConfig
from jaxtool.learn.programs import LearnerProgram, critic_programs, policy_programs
from jaxtool.learn.state import make_state, zero_gradients
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import FrozenPolicy, LoraConfig, adapter_shapes
from jaxtool.model.param_axes import param_axes
from jaxtool.model.value_head import with_value_head
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.plan.program import Program, placed, results, shard_bytes
from jaxtool.rollout.batching import PackConfig, empty_batch
from jaxtool.train.numerics import learner_setup
from jaxtool.train.rl_config import RlConfig

# What `RlConfig.offloads_learner` moves to the host while rows decode: see `Learner.with_rest`.
RESTING = ("optimizer state", "critic", "critic optimizer state")
LEAVING = ("parameters", *RESTING)  # with `RlConfig.parameters_leave`: see `Learner.with_policy`


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerPrograms:
    """Programs of the learner, and the bytes per device of what it keeps."""

    programs: tuple[Program, ...]
    policy: Any  # shapes of the parameters that are published, with LoRA frozen and trained ones
    resident: dict[str, float]
    held: tuple[str, ...]  # of `resident`: what is in memory between updates
    decoding: tuple[str, ...]  # of `held`: what is there while the decoder works too


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
    trained, view = trained_shapes(
        params, model, config.lora, sharding, keeps_first=needs_reference(config.grpo)
    )
    policy = tower_of(trained, config.optimizer, sharding)
    full = view.full(trained)
    resident = {
        "parameters": shard_bytes(full),
        "optimizer state": policy.optimizer_bytes,
        "reference": shard_bytes(view.first_copy),
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
    setup = learner_setup(config, model, sharding)
    parts = _Parts(config=config, setup=setup, view=view, held=held)
    programs = parts.of_policy(policy)
    if critic is not None:
        assert config.critic is not None
        programs += parts.of_critic(critic, config.critic)
    away = (LEAVING if config.parameters_leave else RESTING) if config.offloads_learner else ()
    decoding = tuple(name for name in held if name not in away)
    return LearnerPrograms(
        programs=programs, policy=full, resident=resident, held=held, decoding=decoding
    )


def tower_of(params: Any, optimizer: OptimizerConfig, sharding: Sharding) -> Tower:
    return Tower(
        params=params,
        state=results(sharding, make_state, params, optimizer, sharding),
        gradients=results(sharding, zero_gradients, params, sharding),
    )


def trained_shapes(
    params: Any,
    model: ModelConfig,
    lora: LoraConfig | None,
    sharding: Sharding,
    *,
    keeps_first: bool = False,
) -> tuple[Any, PolicyView]:
    """`split_policy` of shapes."""
    if lora is None:
        return params, PolicyView(first_copy=params if keeps_first else None)
    frozen = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, lora.frozen_dtype, sharding=x.sharding), params
    )
    shapes = adapter_shapes(model, lora)
    adapter = placed(shapes, sharding.tree(param_axes(shapes)))
    return adapter, PolicyView(frozen=FrozenPolicy(params=frozen, config=lora))


def block_shapes(rows: int, pack: PackConfig, sharding: Sharding) -> Any:
    """A TrainBatch of a gradient block without targets, as it is placed on the devices."""
    layout = sharding.named("batch", "length")
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
        empty_batch(rows, pack.row_tokens, shares_prompts=pack.shares_prompts),
    )


def update_program(
    program: LearnerProgram,
    tower: Tower,
    optimizer: OptimizerConfig,
    sharding: Sharding,
    *,
    other_resident: tuple[str, ...],
) -> Program:
    """The optimizer's step. `other_resident`: as in Program."""
    return Program(
        name=program.name,
        shape=callable_name(optimizer.rule).rpartition(".")[2],
        trace=lambda: program.trace(state=tower.state, total=tower.gradients),
        num_devices=sharding.mesh.size,
        other_resident=other_resident,
    )


def logit_chunks(length: int, chunk: int, sharding: Sharding) -> int:
    """Chunks of logits in a row: as many as if the loss counted every token of it."""
    return -(-length // sharding.parts("queries") // chunk)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Parts:
    """Makes programs of the learner's table: what all of them share."""

    config: RlConfig
    setup: LearnerSetup
    view: PolicyView
    held: tuple[str, ...]

    def of_policy(self, policy: Tower) -> tuple[Program, ...]:
        grpo, programs = self.config.grpo, policy_programs(self.setup)
        needs_old = needs_old_logprobs(grpo, grpo.updates_per_batch)
        length = self.config.pack.row_tokens
        chunks = logit_chunks(length, grpo.lm_head_chunk, self.setup.sharding)
        # With LoRA the frozen policy is an argument of gradient blocks alone.
        own = ("parameters",) if self.view.frozen is None else ()
        made = (
            self._program(
                programs.gradient_block,
                policy,
                held_arguments=("parameters", "reference"),
                while_trips=chunks,
                old=OldLogprobs(values=self._tokens, is_own=np.bool_(False)) if needs_old else None,
            ),
            self._update(programs.update, policy, self.config.optimizer, (*own, "optimizer state")),
        )
        if needs_old or grpo.reward_kl_coef:
            old = programs.old_logprobs
            made += (
                self._program(old, policy, held_arguments=("parameters",), while_trips=chunks),
            )
        return made

    def of_critic(self, critic: Tower, config: CriticConfig) -> tuple[Program, ...]:
        programs = critic_programs(self.setup, config)
        # With LoRA the frozen policy is an argument of both, and nearly all of "parameters".
        is_whole = self.view.frozen is None
        arguments = ("critic",) if is_whole else ("critic", "parameters")
        return (
            self._program(programs.values, critic, held_arguments=arguments),
            self._program(programs.gradient_block, critic, held_arguments=arguments),
            self._update(
                programs.update, critic, config.optimizer, ("critic", "critic optimizer state")
            ),
        )

    def _update(
        self,
        program: LearnerProgram,
        tower: Tower,
        optimizer: OptimizerConfig,
        held_arguments: tuple[str, ...],
    ) -> Program:
        other_resident = self._other_resident(held_arguments)
        return update_program(
            program, tower, optimizer, self.setup.sharding, other_resident=other_resident
        )

    def _program(
        self,
        program: LearnerProgram,
        tower: Tower,
        *,
        held_arguments: tuple[str, ...],
        while_trips: int = 1,
        old: Any = None,
    ) -> Program:
        """With shapes in place of the arrays of a run. `held_arguments`: see `_other_resident`."""
        config, full = self.config, self.view.full(tower.params)
        rows, length = config.grpo.micro_batch_rows, config.pack.row_tokens
        inputs = block_shapes(rows, config.pack, self.setup.sharding)
        return Program(
            name=program.name,
            shape=f"{rows} rows x {length} tokens",
            trace=lambda: program.trace(
                total=tower.gradients,
                params=tower.params,
                policy=full,
                tower=full,
                view=self.view,
                inputs=inputs,
                block=dataclasses.replace(inputs, advantages=self._tokens),
                old=old,
                old_values=self._tokens,
                returns=self._tokens,
                count=np.float32(1),
            ),
            while_trips=while_trips,
            num_devices=self.setup.sharding.mesh.size,
            other_resident=self._other_resident(held_arguments),
            options=options_for(self.setup.sharding),
        )

    def _other_resident(self, arguments: tuple[str, ...]) -> tuple[str, ...]:
        """`arguments`: what of `held` a program gets, so that it is not counted twice."""
        rest = () if self.config.unloads_decoder else ("published copy", "KV cache")
        return (*(part for part in self.held if part not in arguments), *rest)

    @property
    def _tokens(self) -> Any:
        """Shape of one number a token of a block of rows."""
        return jax.ShapeDtypeStruct(
            (self.config.grpo.micro_batch_rows, self.config.pack.row_tokens),
            jnp.float32,
            sharding=self.setup.sharding.named("batch", "length"),
        )
