"""Where optimizer state lies: each moment like its parameter, whatever of it an optimizer keeps.

Covered: moments of the parameter's shape, in 8 bits with a scale per block (`adam8bit`), and factored
ones, which lack one of its two largest axes (optax.adafactor). The rest is small and stays whole.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from jaxtool.model.param_axes import Axes, param_axes, path_name
from jaxtool.parallel.axis_rules import Sharding, is_axes


class _Parameter(NamedTuple):
    shape: tuple[int, ...]
    axes: Axes


def constrain_like(tree: Any, params: Any, sharding: Sharding) -> Any:
    """`tree` with each leaf laid out like the parameter it belongs to, found by its path.

    Args:
      tree: optimizer state, or what contains it and `params`.
      params: arrays or ShapeDtypeStructs.
    """
    if sharding.mesh.size == 1:
        return tree
    table = _table(params)

    def constrain(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        found = moment_axes(path_name(path), tuple(x.shape), table)
        return x if found is None else sharding.constrain(x, *dividing(found, x.shape, sharding))

    return jax.tree_util.tree_map_with_path(constrain, tree)


def placed_like(tree: Any, params: Any, sharding: Sharding) -> Any:
    """The NamedSharding that `constrain_like` gives each leaf; whole on every device where it gives none."""
    table = _table(params)

    def placed(path: tuple[Any, ...], x: Any) -> NamedSharding:
        found = moment_axes(path_name(path), tuple(x.shape), table) or ()
        return sharding.named(*dividing(found, x.shape[: len(found)], sharding))

    return jax.tree_util.tree_map_with_path(placed, tree)


def _table(params: Any) -> dict[str, _Parameter]:
    shapes = jax.tree_util.tree_leaves_with_path(params)
    axes = jax.tree.leaves(param_axes(params), is_leaf=is_axes)
    return {
        path_name(path): _Parameter(tuple(x.shape), names)
        for (path, x), names in zip(shapes, axes, strict=True)
    }


def moment_axes(name: str, shape: tuple[int, ...], table: Mapping[str, _Parameter]) -> Axes | None:
    """Logical axes of the leaf called `name`; None where it is no moment of a parameter in `table`.

    A moment's path holds the path of its parameter. With a parameter layers/wq of shape [24, 896, 896]:

      mu/layers/wq            [24, 896, 896]   AdamW's moment: the parameter's axes
      mu/layers/wq/scales     [24, 896, 16]    scales of blocks of 56: the parameter's axes
      .v_row/layers/wq        [24, 896]        Adafactor: the largest axis is gone
      count                   []               no parameter in its path: None
    """
    # 1. The parameter: the longest run of path parts that names one.
    parts = name.split("/")
    spans = ((i, j) for i in range(len(parts)) for j in range(len(parts), i, -1))
    names = ("/".join(parts[i:j]) for i, j in spans)
    parameter = next((table[name] for name in names if name in table), None)
    if parameter is None:
        return None
    # 2. A moment of the parameter's own shape lies where the parameter lies.
    if shape == parameter.shape:
        return parameter.axes
    # 3. Scales: the last axis is shorter, the others are the parameter's.
    if len(shape) == len(parameter.shape) and shape[:-1] == parameter.shape[:-1]:
        return parameter.axes
    # 4. Adafactor's rows and columns: the moment lacks the largest or the second largest axis.
    by_size = np.argsort(parameter.shape)
    for kind, dropped in ((".v_row", by_size[-1:]), (".v_col", by_size[-2:-1])):
        kept = np.delete(np.arange(len(parameter.shape)), dropped)
        if kind in parts and shape == tuple(parameter.shape[i] for i in kept):
            return tuple(parameter.axes[i] for i in kept)
    return None


def dividing(axes: Axes, shape: tuple[int, ...], sharding: Sharding) -> Axes:
    """`axes` without those that do not divide."""

    def parts(axis: str) -> int:
        return math.prod(sharding.mesh.shape[name] for name in sharding.rules.mesh_axes(axis))

    return tuple(
        None if axis is None or size % parts(axis) else axis
        for axis, size in zip(axes, shape, strict=True)
    )
