"""Adapters of a whole policy (LoRA, 2106.09685): a small trained tree next to frozen parameters.

The adapter is `layers/<group>/<module>/lora_a` [L, *in, r] and `lora_b` [L, r, *out], float32. Only it has
gradients and optimizer state. Added to the frozen policy it is a policy like any other, whose adapted
kernels are `LoraWeight`s, and with B = 0 the frozen policy bit by bit. Covered: the seven matrices of a
block. Not covered: embeddings and the LM head, dropout (sampler and learner would differ), quantised
frozen weights.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxtool.core.ranges import check_range
from jaxtool.model.config import Dtype, ModelConfig
from jaxtool.model.low_rank import LoraWeight, merged_kernel
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding

Target = Literal["q", "k", "v", "o", "gate", "up", "down"]
MODULES: Mapping[Target, tuple[str, str]] = {
    "q": ("attention", "query"),
    "k": ("attention", "key"),
    "v": ("attention", "value"),
    "o": ("attention", "output"),
    "gate": ("mlp", "gate"),
    "up": ("mlp", "up"),
    "down": ("mlp", "down"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which matrices are adapted, and how. Learning rates are about ten times those of full updates."""

    rank: int = 16  # r
    alpha: float = 32.0  # α: what A B is multiplied by is α / r
    # All matrices: attention alone learns less at an equal number of numbers (LoRA 2106.09685 adapts q
    # and v; QLoRA 2305.14314, figure 2, needs all of a block to match full updates).
    targets: tuple[Target, ...] = get_args(Target)
    # Of the frozen parameters, from the file on. bfloat16 halves them, and changes nothing where the weights
    # come as bfloat16. WORKDIR/policy is then bfloat16 as well if the model computes in it.
    frozen_dtype: Dtype = "float32"

    def __post_init__(self) -> None:
        check_range(self, "alpha", above=0)
        if self.rank < 1:
            raise ValueError(
                f"LoraConfig.rank={self.rank} must be >= 1; without LoRA leave `lora` out"
            )
        unknown = [target for target in self.targets if target not in MODULES]
        if unknown or not self.targets or len(set(self.targets)) < len(self.targets):
            raise ValueError(
                f"LoraConfig.targets={self.targets} must name some of {', '.join(MODULES)}, each once"
            )
        if self.frozen_dtype not in get_args(Dtype):
            raise ValueError(
                f"LoraConfig.frozen_dtype={self.frozen_dtype!r} must be float32 or bfloat16"
            )

    def __str__(self) -> str:
        return f"an adapter of rank {self.rank} on {', '.join(self.targets)}; all else is frozen"

    @property
    def scale(self) -> float:
        """α / r."""
        return self.alpha / self.rank


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FrozenPolicy:
    """What adapters are added to. No update changes, donates or copies it."""

    params: Params
    config: LoraConfig = dataclasses.field(metadata={"static": True})

    def with_adapter(self, adapter: Params) -> Params:
        """The policy: no array is made. What else the tree holds (a critic's head) comes along."""
        layers = {group: dict(modules) for group, modules in self.params["layers"].items()}
        for group, modules in adapter["layers"].items():
            for name, pair in modules.items():
                module = layers[group][name]
                weight = LoraWeight(
                    module["kernel"], pair["lora_a"], pair["lora_b"], self.config.scale
                )
                layers[group][name] = module | {"kernel": weight}
        return self.params | adapter | {"layers": layers}


def adapter_shapes(model: ModelConfig, config: LoraConfig) -> Any:
    """Tree of ShapeDtypeStructs of an adapter; nothing is computed."""
    layers: dict[str, Any] = {}
    for target in config.targets:
        group, name = MODULES[target]
        kernel = param_shapes(model)["layers"][group][name]["kernel"].shape
        cut = 1 + _num_in(target)
        layers.setdefault(group, {})[name] = {
            "lora_a": jax.ShapeDtypeStruct((*kernel[:cut], config.rank), jnp.float32),
            "lora_b": jax.ShapeDtypeStruct((kernel[0], config.rank, *kernel[cut:]), jnp.float32),
        }
    return {"layers": layers}


def init_adapter(
    model: ModelConfig, config: LoraConfig, key: jax.Array, sharding: Sharding
) -> Params:
    """A uniform in ±1/√in, as PEFT draws it; B zero. The same numbers on every mesh."""
    placed = sharding.tree(param_axes(adapter_shapes(model, config)))
    return jax.jit(_init, static_argnums=(0, 1), out_shardings=placed)(model, config, key)


def _init(model: ModelConfig, config: LoraConfig, key: jax.Array) -> Params:
    adapter = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), adapter_shapes(model, config))
    for number, target in enumerate(MODULES):  # an adapter of fewer targets has the same numbers
        if target not in config.targets:
            continue
        group, name = MODULES[target]
        pair = adapter["layers"][group][name]
        shape = pair["lora_a"].shape
        bound = math.prod(shape[1:-1]) ** -0.5
        target_key = jax.random.fold_in(key, number)
        pair["lora_a"] = jax.random.uniform(target_key, shape, jnp.float32, -bound, bound)
    return adapter


def source_dtype(config: LoraConfig | None) -> Dtype:
    """Of the parameters that a run begins with: float32 to update them, else as they stay."""
    return "float32" if config is None else config.frozen_dtype


def without_adapters(params: Params) -> Params:
    """Each adapted kernel as it was frozen."""
    return jax.tree.map(lambda x: x.frozen if _is_adapted(x) else x, params, is_leaf=_is_adapted)


def merge_layers(params: Params) -> Params:
    """W + scale · A B in place of each `LoraWeight`, float32. Layers must be unstacked."""
    return jax.tree.map(
        lambda x: merged_kernel(x) if _is_adapted(x) else x, params, is_leaf=_is_adapted
    )


@functools.partial(jax.jit, static_argnames=("sharding", "keeps_dtype"))
def merged(params: Params, sharding: Sharding, keeps_dtype: bool = False) -> Params:
    """The same policy without adapters: stacked layers, laid out by the table; float32, or as the frozen one is."""

    def plain(x: Any) -> Array:
        if not _is_adapted(x):
            return x if keeps_dtype else x.astype(jnp.float32)

        def merge(index: Array, stack: Array) -> Array:
            layer = jax.tree.map(lambda part: part[index], dataclasses.replace(x, frozen=stack))
            return stack.at[index].set(merged_kernel(layer).astype(stack.dtype))

        # Layer by layer, in place of the frozen one if it is donated: no whole stack is made in float32.
        stack = x.frozen if keeps_dtype else x.frozen.astype(jnp.float32)
        return jax.lax.fori_loop(0, len(x.a), merge, stack)

    whole = jax.tree.map(plain, params, is_leaf=_is_adapted)
    return jax.lax.with_sharding_constraint(whole, sharding.tree(param_axes(whole)))


@functools.partial(jax.jit, static_argnames=("sharding",), donate_argnums=0)
def merged_in_place(frozen: FrozenPolicy, adapter: Params, sharding: Sharding) -> Params:
    """`merged` in the memory and the dtype of `frozen`, which is gone afterwards."""
    return merged(frozen.with_adapter(adapter), sharding, keeps_dtype=True)


def _is_adapted(x: Any) -> bool:
    return isinstance(x, LoraWeight)


def _num_in(target: Target) -> int:
    """Input axes of a kernel: the output projection reads heads x width."""
    return 2 if target == "o" else 1
