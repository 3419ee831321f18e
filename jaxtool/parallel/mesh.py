"""The device mesh: axes `data`, `fsdp`, `context` and `tensor`, on a CPU, a GPU box or a TPU slice.

Covered: the devices of all processes of a run, axis sizes checked before anything is compiled.
Not covered: several slices joined by a data-centre network (one axis per network).
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh

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
    # Devices that do not divide the run's rows and widths stay idle; False: all are used, or the run
    # is refused.
    may_idle: bool = False

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


def make_mesh(
    config: MeshConfig,
    devices: Sequence[Any] | None = None,
    check: Callable[[Mesh], None] | None = None,
) -> Mesh:
    """Mesh over `devices` (default: all), or with `config.may_idle` over as many as pass `check`.

    Auto axes: XLA propagates, we constrain. With several devices, `may_idle` prints one line that names
    the used and the idle ones. Example: rows in blocks of 12 on 8 devices. 8 and 7 do not divide 12, 6
    does, so devices 0-5 are used and 6-7 stay idle.

    Args:
      check: raises ValueError, naming the number, where rows or widths of the run do not divide.

    Raises:
      ValueError: the sizes do not divide the devices, or no mesh passes. Of several hosts every device
        must be used.
    """
    devices = jax.devices() if devices is None else list(devices)
    if not config.may_idle or jax.process_count() > 1:
        return _checked(config, devices, check)
    reasons = []
    for count in range(len(devices), 0, -1):
        try:
            mesh = _checked(config, devices[:count], check)
        except ValueError as error:
            reasons.append(str(error))
            continue
        if len(devices) > 1:
            print(_used(mesh, devices, reasons), flush=True)
        return mesh
    raise ValueError(f"no mesh of up to {len(devices)} devices fits: {reasons[-1]}")


def _checked(config: MeshConfig, devices: list[Any], check: Callable[[Mesh], None] | None) -> Mesh:
    """A mesh over just these devices."""
    sizes = config.sizes(len(devices))
    # Split: a slice of 8 x 8 chips has no axis of 4, which a host's four devices ask for.
    grid = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    mesh = Mesh(grid, AXES, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))
    if check is not None:
        check(mesh)
    return mesh


def _used(mesh: Mesh, devices: Sequence[Any], reasons: Sequence[str]) -> str:
    """One line: which devices, cut how, and why not more."""
    axes = ", ".join(f"{name}={size}" for name, size in mesh.shape.items() if size > 1)
    count, total = mesh.size, len(devices)
    line = f"devices: {_numbers(devices[:count])} of {total}" + f" ({axes})" * bool(axes)
    if count == total:
        return line
    return f"{line}; idle: {_numbers(devices[count:])}, since {reasons[0]}"


def _numbers(devices: Sequence[Any]) -> str:
    first, last = devices[0].id, devices[-1].id
    return str(first) if first == last else f"{first}-{last}"
