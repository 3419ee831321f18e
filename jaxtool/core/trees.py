"""Small questions about pytrees of arrays."""

from typing import Any

import jax


def abstract_like(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of device arrays: a target to restore into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def num_parameters(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))
