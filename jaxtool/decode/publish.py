"""From the learner's parameters to the decoder's: jitted programs that cast, quantise and reshard.

The decoder's copy is not the policy: the float32 parameters stay with the learner, which needs them for
the update, so none is donated. One program publishes the layers one after the other, so that no more
than one layer's worth of gathered arrays is in memory alongside the copy.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jaxtool.decode.device_program import DeviceProgram
from jaxtool.model.config import AttentionBackend, ModelConfig
from jaxtool.model.int8_params import is_matrix, quantize_layers, quantized_axes
from jaxtool.model.lora import merge_layers, without_adapters
from jaxtool.model.param_axes import param_axes
from jaxtool.model.quantize import Int8Weight
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding, is_axes


@dataclasses.dataclass(frozen=True, kw_only=True)
class DecoderNumerics:
    """How the decoder's copy of the policy computes. What is not "learner" widens the log-prob gap."""

    dtype: Literal["learner", "float32", "bfloat16"] = "learner"  # of weights and activations
    weights: Literal["dtype", "int8"] = "dtype"  # int8: one scale per output channel
    cache: Literal["dtype", "int8"] = "dtype"  # int8: one scale per token and head
    attention: AttentionBackend = "auto"
    # Of products whose inputs are sharded over `tensor`: what devices send each other. dtype: half of float32's bytes
    # in bfloat16; each device's part of a sum is rounded once more. Nothing on one device a copy.
    sums: Literal["float32", "dtype"] = "float32"

    def __post_init__(self) -> None:
        for field, choices in (
            ("dtype", ("learner", "float32", "bfloat16")),
            ("weights", ("dtype", "int8")),
            ("cache", ("dtype", "int8")),
            ("attention", get_args(AttentionBackend)),
            ("sums", ("float32", "dtype")),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(
                    f"DecoderNumerics.{field}={getattr(self, field)!r} must be one of {choices}"
                )

    def model(self, learner: ModelConfig) -> ModelConfig:
        """The decoder's config for a learner's."""
        return dataclasses.replace(
            learner,
            compute_dtype=learner.compute_dtype if self.dtype == "learner" else self.dtype,
            cache="int8" if self.cache == "int8" else "compute_dtype",
            attention=self.attention,
            device_sums="compute_dtype" if self.sums == "dtype" else "float32",
        )

    def differs_from(self, learner: ModelConfig) -> str | None:
        """Why log-probs of decoder and learner differ by more than rounding; None: they do not."""
        reasons = []
        if self.model(learner).compute_dtype != learner.compute_dtype:
            reasons.append(f"decodes in {self.dtype}, learns in {learner.compute_dtype}")
        reasons += [
            f"has int8 {name}" for name in ("weights", "cache") if getattr(self, name) == "int8"
        ]
        return ", ".join(reasons) or None


def publish(
    params: Params,
    model: ModelConfig,
    sharding: Sharding,
    weights: Literal["dtype", "int8"] = "dtype",
    *,
    moved: Callable[[Params], Params] = lambda part: part,
) -> Params:
    """The learner's tree as the decoder wants it: layers apart, its dtype, its sharding.

    Args:
      params: stacked layers, float32; still the caller's afterwards. Adapters are merged in.
      model: the decoder's, see `DecoderNumerics.model`.
      weights: "int8" quantises what is multiplied; norms and biases are float32 in any case, as the
        learner's are.
      moved: applied to each part as soon as it is made.
    """
    ends, layer = publication(params, model, sharding, weights)
    published = moved(ends(*ends.arguments()))
    layers = tuple(
        moved(layer(params["layers"], np.int32(index))) for index in range(model.num_layers)
    )
    return published | {"layers": layers}


def publication(
    params: Params, model: ModelConfig, sharding: Sharding, weights: Literal["dtype", "int8"]
) -> tuple[DeviceProgram, DeviceProgram]:
    """The two programs of `publish`: all but the layers, and one layer.

    Args:
      params: arrays, or shapes with shardings.
    """
    ends = {name: x for name, x in params.items() if name != "layers"}
    statics = {"model": model, "sharding": sharding, "weights": weights}
    return (
        DeviceProgram(
            name="publish_ends",
            shape=(),
            function=publish_ends,
            statics=statics,
            arguments=lambda: (ends,),
        ),
        DeviceProgram(
            name="publish_layer",
            shape=(),
            function=publish_layer,
            statics=statics,
            arguments=lambda: (params["layers"], np.int32(0)),
        ),
    )


@functools.partial(jax.jit, static_argnames=("model", "sharding", "weights"))
def publish_ends(
    ends: Params, model: ModelConfig, sharding: Sharding, weights: Literal["dtype", "int8"]
) -> Params:
    """Everything but the layers."""
    return _numerics(ends, param_axes(ends), model, sharding, weights)


@functools.partial(jax.jit, static_argnames=("model", "sharding", "weights"))
def publish_layer(
    layers: Params,
    index: Int[Array, ""],
    model: ModelConfig,
    sharding: Sharding,
    weights: Literal["dtype", "int8"],
) -> Params:
    """One of the stacked layers."""
    axes = param_axes({"layers": without_adapters(layers)})["layers"]
    axes = jax.tree.map(lambda a: a[1:], axes, is_leaf=is_axes)
    layer = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), layers)
    return _numerics(merge_layers(layer), axes, model, sharding, weights)


def _numerics(
    params: Any,
    axes: Any,
    model: ModelConfig,
    sharding: Sharding,
    weights: Literal["dtype", "int8"],
) -> Params:
    if weights == "int8":
        axes, params = quantized_axes(axes), quantize_layers(params)

    def cast(path: tuple[Any, ...], x: Any) -> Any:
        if isinstance(x, Int8Weight):
            return x
        # Norms and biases work in float32: a bfloat16 one would be converted in every step of decoding.
        return x.astype(model.dtype) if is_matrix(path) else x.astype(jnp.float32)

    published = jax.tree_util.tree_map_with_path(
        cast, params, is_leaf=lambda x: isinstance(x, Int8Weight)
    )
    return jax.lax.with_sharding_constraint(published, sharding.tree(axes))
