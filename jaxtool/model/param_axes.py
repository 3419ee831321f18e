"""The one table from parameter path to logical axes. A new parameter without a line here raises.

Not covered: the batch, whose size is the caller's to check against the mesh.
"""

import math
import re
from typing import Any

import jax

from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import init_params
from jaxtool.parallel.axis_rules import Sharding

Axes = tuple[str | None, ...]

# First match wins; `layers/` parameters carry the stacked layer axis in front.
_TABLE: tuple[tuple[str, Axes], ...] = (
    (r"embedding", ("vocab", "embed")),
    (r"lm_head", ("embed", "vocab")),
    (r"final_norm", (None,)),
    (r"value_head", (None,)),  # of a critic
    (r"layers/(attention|mlp)_norm/scale", ("layers", None)),
    (r"layers/attention/(query|key)_norm/scale", ("layers", None)),
    (r"layers/attention/query/kernel", ("layers", "embed", "heads", "head_dim")),
    (r"layers/attention/query/bias", ("layers", "heads", "head_dim")),
    (r"layers/attention/(key|value)/kernel", ("layers", "embed", "kv_heads", "head_dim")),
    (r"layers/attention/(key|value)/bias", ("layers", "kv_heads", "head_dim")),
    (r"layers/attention/output/kernel", ("layers", "heads", "head_dim", "embed")),
    (r"layers/mlp/(gate|up)/kernel", ("layers", "embed", "mlp")),
    (r"layers/mlp/down/kernel", ("layers", "mlp", "embed")),
    # Adapters: A has the axes that the kernel reads, B those that it writes; their rank stays whole.
    (r"layers/attention/(query|key|value)/lora_a", ("layers", "embed", None)),
    (r"layers/attention/query/lora_b", ("layers", None, "heads", "head_dim")),
    (r"layers/attention/(key|value)/lora_b", ("layers", None, "kv_heads", "head_dim")),
    (r"layers/attention/output/lora_a", ("layers", "heads", "head_dim", None)),
    (r"layers/mlp/(gate|up)/lora_a", ("layers", "embed", None)),
    (r"layers/mlp/(gate|up)/lora_b", ("layers", None, "mlp")),
    (r"layers/mlp/down/lora_a", ("layers", "mlp", None)),
    (r"layers/(attention/output|mlp/down)/lora_b", ("layers", None, "embed")),
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


def param_shapes(config: ModelConfig) -> Any:
    """Tree of ShapeDtypeStructs of the parameters; nothing is computed."""
    return jax.eval_shape(lambda: init_params(config, jax.random.key(0)))


def check_divides(config: ModelConfig, sharding: Sharding) -> None:
    """Raises ValueError if a size of the model is no multiple of the mesh axes it is sharded over."""
    sizes = {
        "vocab": ("vocab_size", config.vocab_size),
        "embed": ("d_model", config.d_model),
        "heads": ("num_heads", config.num_heads),
        "kv_heads": ("num_kv_heads", config.num_kv_heads),
        "head_dim": ("head_dim", config.head_dim),
        "mlp": ("d_ff", config.d_ff),
        "layers": ("num_layers", config.num_layers),
    }
    for axis, (field, size) in sizes.items():
        mesh_axes = sharding.rules.mesh_axes(axis)
        parts = math.prod(sharding.mesh.shape[name] for name in mesh_axes)
        if size % parts:
            cut = " × ".join(f"{name}={sharding.mesh.shape[name]}" for name in mesh_axes)
            raise ValueError(
                f"{field}={size} is no multiple of the mesh's {cut}: "
                f"make {' × '.join(mesh_axes)} divide {size}, or keep it whole by AxisRules({axis}=())"
            )
