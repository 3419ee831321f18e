"""Bytes that a device holds of the learner, from shapes: no array is made.

Covered: parameters, the copy of the first policy that a KL needs, optimizer state, gradients while they are summed.
Not covered: activations and logits of a gradient computation, which `python -m experiments.plan` compiles, and the
decoder (`decode.memory`).
"""

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from jaxtool.core import rng
from jaxtool.learn.layout import placed_like
from jaxtool.learn.policy_view import PolicyView, split_policy
from jaxtool.learn.state import TrainState
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraConfig, source_dtype
from jaxtool.model.param_axes import param_shapes
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding

_GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnerMemory:
    """Bytes of one device, and how many numbers updates change."""

    parameters: int  # of the policy with what is frozen of it, and of the critic
    reference: int
    optimizer_state: int
    gradients: (
        int  # of the policy or of the critic, whichever are more: they are not summed at once
    )
    trained_numbers: int  # of the policy, or of its adapter
    frozen_numbers: int  # what the adapter is added to; 0 without one
    critic_numbers: int  # trained of the critic; 0 without one

    @property
    def total(self) -> int:
        return self.parameters + self.reference + self.optimizer_state + self.gradients

    @property
    def trained(self) -> str:
        """How many numbers are trained, in words."""
        text = f"all {self.trained_numbers:,} parameters"
        if self.frozen_numbers:
            text = f"{self.trained_numbers:,} in an adapter, {self.frozen_numbers:,} stay frozen"
        return text + f"; {self.critic_numbers:,} of the critic" * bool(self.critic_numbers)

    def __str__(self) -> str:
        parts = {
            "parameters": self.parameters,
            "reference": self.reference,
            "optimizer state": self.optimizer_state,
            "gradients": self.gradients,
        }
        named = ", ".join(f"{name} {size / _GIB:.3f}" for name, size in parts.items() if size)
        return f"{self.total / _GIB:.3f} GiB a device ({named})"

    def check_fits(self, device_bytes: int | None) -> None:
        """Raises ValueError if a device of so many bytes cannot hold it; None: unknown."""
        if device_bytes is not None and self.total > device_bytes:
            raise ValueError(
                f"the learner's state takes {self}, and a device has {device_bytes / _GIB:.3f} GiB: use more "
                "devices and shard over them by MeshConfig.fsdp, set OptimizerConfig.rule to AdamW8bit or "
                "Adafactor, or train an adapter by `lora`"
            )


def learner_memory(
    start: Callable[[Params, PolicyView], Any],
    model: ModelConfig,
    lora: LoraConfig | None,
    sharding: Sharding,
    *,
    keeps_first: bool = False,
) -> LearnerMemory:
    """What the learner holds once it has started.

    Args:
      start: the learner's own, of what is trained and the view that it belongs to.
      keeps_first: whether a KL term needs the first policy.
    """
    # 1. Shapes, by the functions that the run starts with. States are TrainStates: of the policy, and
    #    with PPO of the critic after it.
    dtype = source_dtype(lora)
    whole = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), param_shapes(model))

    def begin(params: Params) -> tuple[Any, PolicyView]:
        key = rng.key(0, "lora")
        trained, view = split_policy(params, model, lora, key, sharding, keeps_first=keeps_first)
        return start(trained, view), view

    state, view = jax.eval_shape(begin, whole)
    found = jax.tree.leaves(state, is_leaf=lambda x: isinstance(x, TrainState))
    policy, *critics = (x for x in found if isinstance(x, TrainState))
    towers = [policy, *critics]
    # 2. Bytes, by the layout that the run gives each of them.
    frozen = None if view.frozen is None else view.frozen.params
    first = view.first_copy
    gradients = [_bytes(tower.params, tower.params, sharding.of_state) for tower in towers]
    parameters = [_bytes(tower.params, tower.params, sharding) for tower in towers]
    moments = [_bytes(tower.opt_state, tower.params, sharding.of_state) for tower in towers]
    return LearnerMemory(
        parameters=sum(parameters) + _bytes(frozen, whole, sharding),
        reference=_bytes(first, whole, sharding),
        optimizer_state=sum(moments),
        gradients=max(gradients),
        trained_numbers=_numbers(policy.params),
        frozen_numbers=_numbers(frozen),
        critic_numbers=sum(_numbers(critic.params) for critic in critics),
    )


def memory_of_device(mesh: Mesh) -> int | None:
    """Bytes of a device, whatever is in them; of CPU devices an equal share of the host's. None: unknown."""
    own = [x for x in mesh.devices.flat if x.process_index == jax.process_index()]
    stats = own[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return stats["bytes_limit"]
    if own[0].platform == "cpu" and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // len(own)
    return None


def _bytes(tree: Any, params: Any, sharding: Sharding) -> int:
    """That a device holds of a tree whose leaves are laid out like the parameters they belong to."""
    sizes = jax.tree.map(
        lambda x, placed: math.prod(placed.shard_shape(x.shape)) * x.dtype.itemsize,
        tree,
        placed_like(tree, params, sharding),
    )
    return sum(jax.tree.leaves(sizes))


def _numbers(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
