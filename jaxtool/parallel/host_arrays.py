"""Arrays between hosts: from equal host copies to one global array, back, and to one host's devices."""

from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding

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


def decode_mesh(mesh: Mesh) -> Mesh:
    """The mesh that one host decodes on: its own devices, `tensor` as in `mesh`.

    One process: `mesh` itself. Several: [devices of this host / tensor, 1, 1, tensor].

    Raises:
      ValueError: `tensor` does not divide a host's devices.
    """
    if not _is_shared(mesh):
        return mesh
    by_host = _by_host(mesh)
    return Mesh(by_host.devices[_own_rows(by_host)], AXES, axis_types=mesh.axis_types)


def to_host(tree: Any, mesh: Mesh) -> Any:
    """Global arrays that are sharded over `tensor` alone, as arrays on `decode_mesh(mesh)`.

    No copy where each tensor group is within a host: the shards are there already. Where the mesh
    spreads a group over hosts, the arrays are first resharded: every shard moves, and until the
    caller lets `tree` go each device holds it twice.
    """
    own, by_host, moves = decode_mesh(mesh), _by_host(mesh), moves_shards(mesh)

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


def moves_shards(mesh: Mesh) -> bool:
    """Whether `to_host` copies between hosts, because `mesh` spreads tensor groups over them.

    Raises:
      ValueError: `tensor` does not divide a host's devices.
    """
    return not np.array_equal(_tensor_groups(mesh), _tensor_groups(_by_host(mesh)))


def _is_shared(mesh: Mesh) -> bool:
    return len({device.process_index for device in mesh.devices.flat}) > 1


def _by_host(mesh: Mesh) -> Mesh:
    """The same devices with each tensor group within a host; the groups of `mesh` where they are."""
    tensor = mesh.shape["tensor"]
    local = mesh.devices.size // len({device.process_index for device in mesh.devices.flat})
    if local % tensor:
        raise ValueError(
            f"MeshConfig.tensor={tensor} does not divide the {local} devices of a host: "
            "decoding is tensor-parallel within a host, choose a divisor"
        )
    groups = mesh.devices.reshape(-1, tensor)
    if any(len({device.process_index for device in group}) > 1 for group in groups):
        flat = sorted(mesh.devices.flat, key=lambda device: (device.process_index, device.id))
        groups = np.array(flat, object).reshape(-1, tensor)
    order = sorted(range(len(groups)), key=lambda row: groups[row][0].process_index)
    devices = groups[order].reshape(-1, 1, 1, tensor)
    return Mesh(devices, AXES, axis_types=mesh.axis_types)


def _own_rows(by_host: Mesh) -> np.ndarray:
    first = by_host.devices[:, 0, 0, 0]
    own = jax.process_index()
    return np.array([device.process_index == own for device in first])


def _tensor_groups(mesh: Mesh) -> np.ndarray:
    """[groups, tensor] device ids, the groups in order of their first device."""
    ids = np.array([device.id for device in mesh.devices.flat]).reshape(-1, mesh.shape["tensor"])
    return ids[np.argsort(ids[:, 0])]
