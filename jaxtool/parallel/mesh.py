"""The device mesh: axes `data`, `fsdp`, `context` and `tensor`, on a CPU, a GPU box or a TPU slice.

Covered: the devices of all processes of a run, axis sizes checked before anything is compiled.
Not covered: several slices joined by a data-centre network (one axis per network).
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils

AXES = ("data", "fsdp", "context", "tensor")
REST = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1 and takes the devices that are left."""

    data: int = 1  # copies of the parameters, each with its share of the batch
    fsdp: int = REST  # parameters, optimizer state and batch are sharded over this axis
    context: int = (
        1  # packed rows of the learner are sharded over their tokens, parameters as by fsdp
    )
    tensor: int = 1  # heads, feed-forward width and vocabulary are sharded over this axis

    @property
    def _asked(self) -> tuple[int, ...]:
        return (self.data, self.fsdp, self.context, self.tensor)

    def __post_init__(self) -> None:
        sizes = self._asked
        if sum(size == REST for size in sizes) > 1:
            raise ValueError(
                f"only one mesh axis may be -1, got {dict(zip(AXES, sizes, strict=True))}"
            )
        if any(size < 1 and size != REST for size in sizes):
            raise ValueError(
                f"mesh axes must be >= 1 or -1, got {dict(zip(AXES, sizes, strict=True))}"
            )

    def sizes(self, num_devices: int) -> tuple[int, ...]:
        """Sizes of `AXES` for `num_devices` devices; raises if they do not divide."""
        sizes = list(self._asked)
        fixed = int(np.prod([size for size in sizes if size != REST]))
        if REST in sizes and num_devices % fixed == 0:
            sizes[sizes.index(REST)] = num_devices // fixed
        if int(np.prod(sizes)) != num_devices:
            named = dict(zip(AXES, self._asked, strict=True))
            raise ValueError(
                f"mesh {named} does not divide {num_devices} devices: "
                f"make the product of MeshConfig's axes {num_devices}, or one of them -1"
            )
        return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> jax.sharding.Mesh:
    """Mesh over `devices` (default: all). Auto axes: XLA propagates, we constrain."""
    devices = jax.devices() if devices is None else list(devices)
    # Split: a slice of 8 x 8 chips has no axis of 4, which a host's four devices ask for.
    grid = mesh_utils.create_device_mesh(
        config.sizes(len(devices)), devices, allow_split_physical_axes=True
    )
    return jax.sharding.Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
