"""Device arrays that wait in the memory of their host, and come back bit for bit.

Each shard stays beside its device: nothing travels between devices or hosts, so that arrays over several hosts move
as those of one. Not covered: overlap with what the devices do meanwhile.
"""

import dataclasses
from typing import Any

import jax
from jax.sharding import Mesh, Sharding, SingleDeviceSharding

HOST = "pinned_host"  # the memory that a device's copy engine reads and writes by itself


@dataclasses.dataclass(frozen=True)
class OnHost:
    """An array's shards in the memory of this host."""

    shape: tuple[int, ...]
    sharding: Sharding  # on the devices, where it comes from and returns to
    shards: tuple[jax.Array, ...]  # one per addressable device


def check_has_host_memory(mesh: Mesh, setting: str) -> None:
    """Raises ValueError if the devices know no memory of their host.

    Args:
      setting: what asks for it, as gin names it.
    """
    device = mesh.local_devices[0]
    kinds = sorted(memory.kind for memory in device.addressable_memories())
    if HOST not in kinds:
        raise ValueError(
            f"{setting} needs devices with {HOST} memory; {device.platform} devices have {', '.join(kinds)}: "
            "leave it out"
        )


def to_host_memory(tree: Any) -> Any:
    """`tree` with an `OnHost` in place of each array, when all are copied; the device's memory is free then.

    The caller's arrays are deleted. An array that several leaves share is not allowed.
    """

    def away(x: jax.Array) -> OnHost:
        shards = tuple(_moved(shard.data, shard.device, HOST) for shard in x.addressable_shards)
        return OnHost(x.shape, x.sharding, shards)

    moved = jax.tree.map(away, tree)
    jax.block_until_ready([x.shards for x in jax.tree.leaves(moved, is_leaf=is_on_host)])
    for x in jax.tree.leaves(tree):
        x.delete()
    return moved


def to_device_memory(tree: Any) -> Any:
    """The arrays of `to_host_memory`, with the shardings that they had; other leaves stay as they are."""

    def back(x: Any) -> Any:
        if not is_on_host(x):
            return x
        shards = [
            _moved(shard, next(iter(shard.devices())), shard_kind(x.sharding)) for shard in x.shards
        ]
        return jax.make_array_from_single_device_arrays(x.shape, x.sharding, shards)

    return jax.tree.map(back, tree, is_leaf=is_on_host)


def device_bytes(tree: Any) -> float:
    """That a tree of arrays takes on one device of this host."""
    return float(sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree)))


def is_on_host(x: Any) -> bool:
    return isinstance(x, OnHost)


def shard_kind(sharding: Sharding) -> str | None:
    """The memory of a sharding's devices; None: their own."""
    return sharding.memory_kind


def _moved(shard: jax.Array, device: Any, memory: str | None) -> jax.Array:
    return jax.device_put(shard, SingleDeviceSharding(device, memory_kind=memory))
