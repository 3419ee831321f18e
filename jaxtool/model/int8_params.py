"""Which parameters of the decoder become int8, and how the scales are sharded over the mesh."""

from typing import Any

import jax
from jaxtyping import Array

from jaxtool.model.param_axes import path_name
from jaxtool.model.quantize import Int8Weight, quantize
from jaxtool.parallel.axis_rules import is_axes

# Input axes of the decoder's weights, layers apart; what is not here (norms, biases) stays float.
_INPUT_AXES = {
    "embedding": (1,),  # [V, D]: one scale per token, whether it is looked up or is the head
    "lm_head": (0,),
    "query": (0,),
    "key": (0,),
    "value": (0,),
    "output": (0, 1),
    "gate": (0,),
    "up": (0,),
    "down": (0,),
}


def is_matrix(path: tuple[Any, ...]) -> bool:
    """Whether a parameter is multiplied as a matrix or looked up; norms and biases are not."""
    return _input_axes(path) is not None


def quantize_layers(params: Any) -> Any:
    """A tree with unstacked layers; its matrices become `Int8Weight`s."""

    def leaf(path: tuple[Any, ...], x: Array) -> Array | Int8Weight:
        axes = _input_axes(path)
        return x if axes is None else Int8Weight(*quantize(x, axes))

    return jax.tree_util.tree_map_with_path(leaf, params)


def quantized_axes(axes: Any) -> Any:
    """Logical axes of `quantize_layers`' result from those of its argument."""

    def leaf(path: tuple[Any, ...], names: tuple[str | None, ...]) -> Any:
        inputs = _input_axes(path)
        if inputs is None:
            return names
        kept = tuple(name for i, name in enumerate(names) if i not in inputs)
        return Int8Weight(names, kept)  # pyright: ignore[reportArgumentType]

    return jax.tree_util.tree_map_with_path(leaf, axes, is_leaf=is_axes)


def _input_axes(path: tuple[Any, ...]) -> tuple[int, ...] | None:
    *modules, name = path_name(path).split("/")
    if name in ("embedding", "lm_head"):
        return _INPUT_AXES[name]
    return _INPUT_AXES[modules[-1]] if name == "kernel" else None
