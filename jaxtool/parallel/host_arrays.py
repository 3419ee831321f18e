"""Arrays between hosts: from equal host copies to one global array, back, and to one host's devices."""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

from jaxtool.parallel.axis_rules import AxisRules
from jaxtool.parallel.mesh import AXES


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Host arrays that are the same in every process, placed; each host copies its own part only."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(
        lambda x: jax.make_array_from_callback(x.shape, sharding, lambda index: x[index]), tree
    )


def fetch(x: jax.Array) -> np.ndarray:
    """The whole of an array on every host; a collective where it is sharded over several."""
    if x.is_fully_addressable or x.is_fully_replicated:
        return np.asarray(x)
    return multihost_utils.process_allgather(x, tiled=True)


def decode_mesh(mesh: Mesh, rules: AxisRules) -> Mesh:
    """The mesh that one host decodes on: its own devices, in groups that share the weights.

    One process: `mesh` itself. Several, where rows leave `tensor` free: [devices of this host / tensor, 1, 1, tensor];
    where they leave `context` and `tensor` free: [devices / (context x tensor), 1, context, tensor].

    Args:
      rules: the decoder's.

    Raises:
      ValueError: a group does not divide a host's devices.
    """
    if not _is_shared(mesh):
        return mesh
    by_host = _by_host(mesh, rules)
    return Mesh(by_host.devices[_own_rows(by_host)], AXES, axis_types=mesh.axis_types)


def to_host(tree: Any, mesh: Mesh, rules: AxisRules) -> Any:
    """Global arrays that are sharded within the decoder's groups alone, as arrays on `decode_mesh(mesh, rules)`.

    No copy where each group is within a host: the shards are there already. Where the mesh
    spreads a group over hosts, the arrays are first resharded: every shard moves, and until the
    caller lets `tree` go each device holds it twice.
    """
    own, by_host = decode_mesh(mesh, rules), _by_host(mesh, rules)
    moves = moves_shards(mesh, rules)

    def view(x: jax.Array) -> jax.Array:
        assert isinstance(x.sharding, NamedSharding)
        spec = x.sharding.spec
        if moves:
            x = jax.device_put(x, NamedSharding(by_host, spec))
        shards = {shard.device: shard.data for shard in x.addressable_shards}
        return jax.make_array_from_single_device_arrays(
            x.shape, NamedSharding(own, spec), [shards[device] for device in own.devices.flat]
        )

    return jax.tree.map(view, tree)


def moves_shards(mesh: Mesh, rules: AxisRules) -> bool:
    """Whether `to_host` copies between hosts, because `mesh` spreads groups of the decoder over them.

    Raises:
      ValueError: a group does not divide a host's devices.
    """
    size = math.prod(mesh.shape[axis] for axis in _group_axes(rules))
    return not np.array_equal(_groups(mesh, size), _groups(_by_host(mesh, rules), size))


def _is_shared(mesh: Mesh) -> bool:
    return len({device.process_index for device in mesh.devices.flat}) > 1


def _group_axes(rules: AxisRules) -> tuple[str, ...]:
    """Axes that the decoder's rows leave free: its weights are cut over them."""
    free = tuple(axis for axis in AXES if axis not in rules.batch)
    if free not in (AXES[2:], AXES[3:]):
        raise ValueError(
            f"the decoder's rows are sharded over {rules.batch}: they may leave {AXES[2:]} free or {AXES[3:]}"
        )
    return free


def _by_host(mesh: Mesh, rules: AxisRules) -> Mesh:
    """The same devices with each group within a host; the groups of `mesh` where they are."""
    free = _group_axes(rules)
    sizes = [mesh.shape[axis] for axis in free]
    size = math.prod(sizes)
    local = mesh.devices.size // len({device.process_index for device in mesh.devices.flat})
    if local % size:
        named = " x ".join(f"MeshConfig.{axis}={mesh.shape[axis]}" for axis in free)
        raise ValueError(
            f"{named} does not divide the {local} devices of a host: "
            "decoding is tensor-parallel within a host, choose a divisor"
        )
    groups = mesh.devices.reshape(-1, size)
    if any(len({device.process_index for device in group}) > 1 for group in groups):
        flat = sorted(mesh.devices.flat, key=lambda device: (device.process_index, device.id))
        groups = np.array(flat, object).reshape(-1, size)
    order = sorted(range(len(groups)), key=lambda row: groups[row][0].process_index)
    devices = groups[order].reshape(-1, *[1] * (len(AXES) - 1 - len(free)), *sizes)
    return Mesh(devices, AXES, axis_types=mesh.axis_types)


def _own_rows(by_host: Mesh) -> np.ndarray:
    first = by_host.devices[:, 0, 0, 0]  # of each group
    own = jax.process_index()
    return np.array([device.process_index == own for device in first])


def _groups(mesh: Mesh, size: int) -> np.ndarray:
    """[groups, size] device ids, the groups in order of their first device."""
    ids = np.array([device.id for device in mesh.devices.flat]).reshape(-1, size)
    return ids[np.argsort(ids[:, 0])]
