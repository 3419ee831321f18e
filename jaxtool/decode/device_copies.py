"""Arrays of the devices kept in this host's memory for a while, and back: bit for bit, sharded as before.

For a cache whose rows shall outlive an update that needs the devices' memory. One array after the other is copied and
freed, so the devices never hold more than before, and this host holds all of them once. Not covered: which arrays, and
when (`engine`).
"""

import dataclasses
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class _OnHost:
    """One array: its different shards, and which device had which."""

    shape: tuple[int, ...]
    sharding: jax.sharding.Sharding
    shards: tuple[np.ndarray, ...]  # each once, however many devices hold it
    holders: tuple[tuple[Any, int], ...]  # device, index in shards


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostCopy:
    """What `to_host_memory` took from the devices."""

    leaves: tuple[_OnHost, ...]
    structure: Any  # of the tree

    @property
    def num_bytes(self) -> int:
        """Of this host's memory."""
        return sum(shard.nbytes for leaf in self.leaves for shard in leaf.shards)

    def to_devices(self) -> Any:
        """The tree as it was, on the devices it was on; may be called again."""
        return jax.tree.unflatten(self.structure, [_placed(leaf) for leaf in self.leaves])


def to_host_memory(tree: Any) -> HostCopy:
    """Copies a tree of device arrays to this host and frees each of them: nobody may use them afterwards.

    Raises:
      ValueError: an array is sharded over several hosts.
    """
    leaves, structure = jax.tree.flatten(tree)
    for x in leaves:
        if not x.is_fully_addressable:
            raise ValueError(f"an array {x.shape} on several hosts has no copy on one of them")
    taken = []
    for i, x in enumerate(leaves):
        # The next one is on its way while this one is put down.
        for ahead in leaves[i : i + 2]:
            ahead.copy_to_host_async()
        taken.append(_taken(x))
        x.delete()
    return HostCopy(leaves=tuple(taken), structure=structure)


def _taken(x: jax.Array) -> _OnHost:
    shards: list[np.ndarray] = []
    places: dict[str, int] = {}
    holders = []
    for shard in x.addressable_shards:
        place = str(shard.index)  # of a replicated array all devices have the same one
        if place not in places:
            places[place] = len(shards)
            # A copy: on a CPU the array itself would still be the device's memory.
            shards.append(np.array(shard.data, copy=True))
        holders.append((shard.device, places[place]))
    return _OnHost(shape=x.shape, sharding=x.sharding, shards=tuple(shards), holders=tuple(holders))


def _placed(leaf: _OnHost) -> jax.Array:
    # On a CPU a put may take the host's memory itself, and a cache is donated: so a copy there too.
    parts = [jax.device_put(leaf.shards[i], device, may_alias=False) for device, i in leaf.holders]
    return jax.make_array_from_single_device_arrays(leaf.shape, leaf.sharding, parts)
