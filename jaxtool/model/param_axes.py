"""The one table from parameter path to logical axes. A new parameter without a line here raises."""

import re
from typing import Any

import jax

Axes = tuple[str | None, ...]

# First match wins; `layers/` parameters carry the stacked layer axis in front.
_TABLE: tuple[tuple[str, Axes], ...] = (
    (r"embedding", ("vocab", "embed")),
    (r"lm_head", ("embed", "vocab")),
    (r"final_norm", (None,)),
    (r"layers/(attention|mlp)_norm/scale", ("layers", None)),
    (r"layers/attention/(query|key)_norm/scale", ("layers", None)),
    (r"layers/attention/query/kernel", ("layers", "embed", "heads", "head_dim")),
    (r"layers/attention/query/bias", ("layers", "heads", "head_dim")),
    (r"layers/attention/(key|value)/kernel", ("layers", "embed", "kv_heads", "head_dim")),
    (r"layers/attention/(key|value)/bias", ("layers", "kv_heads", "head_dim")),
    (r"layers/attention/output/kernel", ("layers", "heads", "head_dim", "embed")),
    (r"layers/mlp/(gate|up)/kernel", ("layers", "embed", "mlp")),
    (r"layers/mlp/down/kernel", ("layers", "mlp", "embed")),
)

CACHE_AXES: Axes = ("batch", "kv_heads", None, None)  # [B, K, S, H]


def path_name(path: tuple[Any, ...]) -> str:
    """`layers/mlp/gate/kernel` for a key path of jax.tree_util."""
    return "/".join(str(getattr(part, "key", getattr(part, "idx", part))) for part in path)


def axes_of(name: str) -> Axes:
    """Logical axes of the parameter called `name`."""
    for pattern, axes in _TABLE:
        if re.fullmatch(pattern, name):
            return axes
    raise ValueError(f"parameter {name!r} has no line in jaxtool/model/param_axes.py")


def param_axes(params: Any) -> Any:
    """Tree of logical axes, of the structure of `params` (arrays or ShapeDtypeStructs)."""

    def leaf(path: tuple[Any, ...], x: Any) -> Axes:
        name = path_name(path)
        axes = axes_of(name)
        if len(axes) != len(x.shape):
            raise ValueError(f"parameter {name!r} has rank {len(x.shape)}, its axes are {axes}")
        return axes

    return jax.tree_util.tree_map_with_path(leaf, params)
