"""The table of the learner's programs: what is compiled, with which settings, and what each one takes.

Learners call the programs of this table, and a plan traces them with shapes in place of arrays.
"""

import dataclasses
import functools
from typing import Any

import jax

from jaxtool.learn.compile_options import for_devices
from jaxtool.learn.grpo import LearnerSetup, grpo_block, old_logprobs
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.ppo import CriticConfig, critic_block, critic_values
from jaxtool.learn.sft import SftSetup, sft_block
from jaxtool.learn.state import apply_gradients
from jaxtool.parallel.axis_rules import Sharding

LEARN, APPLY, OLD = "gradient block", "optimizer update", "old log-probs"
VALUES, CRITIC, CRITIC_APPLY = "critic values", "critic gradient block", "critic update"


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerProgram:
    """One compiled program. A call of `run` is a call of the jitted function itself."""

    name: str
    run: functools.partial[Any]  # of a jitted function, its settings bound
    takes: tuple[str, ...]  # names of what `run` is called with, in order

    def trace(self, **arguments: Any) -> jax.stages.Traced:
        """Traced with arrays or their shapes, by name; names that the program does not take are left out."""
        jitted: Any = self.run.func
        return jitted.trace(*(arguments[name] for name in self.takes), **self.run.keywords)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyPrograms:
    """Of every update of a policy."""

    gradient_block: LearnerProgram
    update: LearnerProgram
    old_logprobs: LearnerProgram  # of all updates but the first, and for a KL in the reward


@dataclasses.dataclass(frozen=True, kw_only=True)
class CriticPrograms:
    """Of every update of a critic."""

    values: LearnerProgram
    gradient_block: LearnerProgram
    update: LearnerProgram


@dataclasses.dataclass(frozen=True, kw_only=True)
class ColdStartPrograms:
    """Of every update by maximum likelihood."""

    gradient_block: LearnerProgram
    update: LearnerProgram


def policy_programs(setup: LearnerSetup) -> PolicyPrograms:
    return PolicyPrograms(
        gradient_block=LearnerProgram(
            name=LEARN,
            run=functools.partial(for_devices(grpo_block, setup.sharding), setup=setup),
            takes=("total", "params", "view", "block", "old", "count"),
        ),
        update=_update(APPLY, setup.optimizer, setup.sharding),
        old_logprobs=LearnerProgram(
            name=OLD,
            run=functools.partial(for_devices(old_logprobs, setup.sharding), setup=setup),
            takes=("policy", "inputs"),
        ),
    )


def critic_programs(setup: LearnerSetup, critic: CriticConfig) -> CriticPrograms:
    return CriticPrograms(
        values=LearnerProgram(
            name=VALUES,
            run=functools.partial(for_devices(critic_values, setup.sharding), setup=setup),
            takes=("tower", "inputs"),
        ),
        gradient_block=LearnerProgram(
            name=CRITIC,
            run=functools.partial(
                for_devices(critic_block, setup.sharding), setup=setup, critic=critic
            ),
            takes=("total", "params", "view", "inputs", "old_values", "returns", "count"),
        ),
        update=_update(CRITIC_APPLY, critic.optimizer, setup.sharding),
    )


def cold_start_programs(setup: SftSetup) -> ColdStartPrograms:
    return ColdStartPrograms(
        gradient_block=LearnerProgram(
            name=LEARN,
            run=functools.partial(for_devices(sft_block, setup.sharding), setup=setup),
            takes=("total", "params", "view", "inputs", "count"),
        ),
        update=_update(APPLY, setup.optimizer, setup.sharding),
    )


def _update(name: str, optimizer: OptimizerConfig, sharding: Sharding) -> LearnerProgram:
    return LearnerProgram(
        name=name,
        run=functools.partial(apply_gradients, config=optimizer, sharding=sharding),
        takes=("state", "total"),
    )
