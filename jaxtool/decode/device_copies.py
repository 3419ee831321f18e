"""A cache in this host's memory while an update needs the devices' memory, and back: bit for bit, sharded as before.

One array after the other is copied and freed, so the devices never hold more than before. Memory of the host is that of
`host_pages`, pinned where the platform has it. Not covered: which rows go on (`engine`).
"""

import dataclasses
from typing import Any

import jax

from jaxtool.decode.host_pages import on_host


@dataclasses.dataclass(frozen=True, kw_only=True)
class HostCopy:
    """What `to_host_memory` took from the devices."""

    arrays: Any  # the tree, in memory of the host
    shardings: Any  # the tree's, on the devices

    @property
    def num_bytes(self) -> int:
        """Of this host's memory; what several devices held is there as often."""
        return sum(
            s.data.nbytes for x in jax.tree.leaves(self.arrays) for s in x.addressable_shards
        )

    def to_devices(self) -> Any:
        """The tree as it was; it may be donated, this copy stays."""
        return jax.tree.map(
            lambda x, sharding: jax.device_put(x, sharding, may_alias=False),
            self.arrays,
            self.shardings,
        )


def to_host_memory(tree: Any) -> HostCopy:
    """Copies a tree of arrays of this host's devices and frees each of them: nobody may use them afterwards."""
    leaves, structure = jax.tree.flatten(tree)
    shardings = [x.sharding for x in leaves]
    copies = []
    for x in leaves:
        copies.append(jax.device_put(x, on_host(x.sharding), may_alias=False))
        copies[-1].block_until_ready()
        x.delete()
    return HostCopy(
        arrays=jax.tree.unflatten(structure, copies),
        shardings=jax.tree.unflatten(structure, shardings),
    )
