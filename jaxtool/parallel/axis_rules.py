"""From logical axes ("embed", "heads", ...) to mesh axes: one frozen table and its presets.

The idea of a rules dataclass with a collision check is that of jax-llm-examples.
"""

import dataclasses
import math
from typing import Any, Literal

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxtool.parallel.mesh import AXES

MeshAxes = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AxisRules:
    """Mesh axes that each logical axis is sharded over; an empty tuple keeps it whole."""

    batch: MeshAxes = ("data", "fsdp")  # rows of a batch or of the KV cache
    length: MeshAxes = ("context",)  # tokens of a row
    queries: MeshAxes = ("context",)  # tokens that attend; those they look at are whole
    layers: MeshAxes = ()  # stacked layers: scanned, so never sharded
    embed: MeshAxes = ("fsdp", "context")  # D of a parameter
    heads: MeshAxes = ("tensor",)  # N
    kv_heads: MeshAxes = ("tensor",)  # K
    head_dim: MeshAxes = ()  # H
    mlp: MeshAxes = ("tensor",)  # F
    vocab: MeshAxes = ("tensor",)  # V
    activation_embed: MeshAxes = ()  # D of an activation: whole, or it would collide with batch
    # D of gradient sums and optimizer state; None: as `embed`. ("fsdp", "context", "data") shards them over
    # the replicas of the parameters too: stages 1 and 2 of ZeRO (Rajbhandari et al., 2020, 1910.02054).
    optimizer_embed: MeshAxes | None = None

    def mesh_axes(self, axis: str) -> MeshAxes:
        """Mesh axes that logical axis `axis` is sharded over."""
        table: dict[str, MeshAxes] = dataclasses.asdict(self)
        del table["optimizer_embed"]  # is `embed` of another table, see `Sharding.of_state`
        if axis not in table:
            raise ValueError(f"unknown logical axis {axis!r}; known: {sorted(table)}")
        return table[axis]

    def spec(self, *axes: str | None) -> PartitionSpec:
        """PartitionSpec of an array with these logical axes (None: keep whole).

        Raises:
          ValueError: two logical axes land on the same mesh axis, or a name is unknown.
        """
        entries: list[MeshAxes | None] = []
        used: dict[str, str] = {}
        for axis in axes:
            if axis is None:
                entries.append(None)
                continue
            mesh_axes = self.mesh_axes(axis)
            for mesh_axis in mesh_axes:
                if mesh_axis in used:
                    raise ValueError(
                        f"logical axes {used[mesh_axis]!r} and {axis!r} both map to mesh axis "
                        f"{mesh_axis!r} in {axes}"
                    )
                used[mesh_axis] = axis
            entries.append(mesh_axes or None)
        return PartitionSpec(*entries)


def fsdp_tensor() -> AxisRules:
    """Training: parameters sharded over all but data, batch over data and fsdp, its rows over context."""
    return AxisRules()


def decode(
    learner: AxisRules | None = None, tensor: Literal["tensor", "context x tensor"] = "tensor"
) -> AxisRules:
    """Sampling: no parameter sharded over rows' axes, so that no step gathers weights.

    Args:
      learner: what it keeps whole of heads, widths and vocabulary, because they do not divide, is
        whole here too.
      tensor: mesh axes whose devices share a row's heads and widths. With both a learner may have smaller groups than
        the decoder: rows of its own over `context`, heads over `tensor` alone.
    """
    shared = ("context", "tensor") if tensor == "context x tensor" else ("tensor",)
    rules = AxisRules(
        batch=tuple(axis for axis in ("data", "fsdp", "context") if axis not in shared),
        length=(),
        queries=(),
        embed=(),
        heads=shared,
        kv_heads=shared,
        mlp=shared,
        vocab=shared,
    )
    if learner is None:
        return rules
    names = ("heads", "kv_heads", "head_dim", "mlp", "vocab")
    whole: dict[str, MeshAxes] = {name: () for name in names if not learner.mesh_axes(name)}
    return dataclasses.replace(rules, **whole)


def replicated() -> AxisRules:
    """Every parameter whole on every device; only the batch is sharded."""
    return AxisRules(embed=(), heads=(), kv_heads=(), mlp=(), vocab=())


@dataclasses.dataclass(frozen=True)
class Sharding:
    """A mesh and its rules: what functions take that place arrays. Hashable, so jit-static."""

    mesh: Mesh
    rules: AxisRules = dataclasses.field(default_factory=AxisRules)

    def named(self, *axes: str | None) -> NamedSharding:
        return NamedSharding(self.mesh, self.rules.spec(*axes))

    def constrain(self, x: jax.Array, *axes: str | None) -> jax.Array:
        """`x` with its layout fixed; without this XLA may replicate activations by surprise."""
        if self.mesh.size == 1:
            return x
        return jax.lax.with_sharding_constraint(x, self.named(*axes))

    def parts(self, axis: str) -> int:
        """How many parts logical axis `axis` is sharded in."""
        return math.prod(self.mesh.shape[name] for name in self.rules.mesh_axes(axis))

    @property
    def of_state(self) -> "Sharding":
        """Where gradient sums and optimizer state are placed."""
        if self.rules.optimizer_embed is None:
            return self
        rules = dataclasses.replace(self.rules, embed=self.rules.optimizer_embed)
        return dataclasses.replace(self, rules=rules)

    @property
    def mapped_heads(self) -> tuple[str | None, str | None]:
        """Logical axes of query and key heads where attention is mapped over shards.

        A part of the query heads must be on a device with just the key heads that it attends to. Where
        one of the two axes is kept whole it would be with all of them, so there both are whole.
        """
        if self.rules.heads == self.rules.kv_heads:
            return "heads", "kv_heads"
        return None, None

    def tree(self, axes_tree: Any) -> Any:
        """NamedSharding for each leaf of a tree whose leaves are tuples of logical axes."""
        return jax.tree.map(lambda axes: self.named(*axes), axes_tree, is_leaf=is_axes)


def is_axes(x: object) -> bool:
    """True for a tuple of logical axis names, which is a leaf of an axes tree."""
    return isinstance(x, tuple) and all(axis is None or isinstance(axis, str) for axis in x)


def single_device() -> Sharding:
    """Everything on the first device."""
    mesh = jax.make_mesh(
        (1,) * len(AXES),
        AXES,
        axis_types=(jax.sharding.AxisType.Auto,) * len(AXES),
        devices=jax.devices()[:1],
    )
    return Sharding(mesh)
