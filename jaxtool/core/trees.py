"""Small questions about pytrees of arrays."""

from typing import Any

import jax
import jax.numpy as jnp


def abstract_like(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of device arrays: a target to restore into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def num_parameters(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@jax.jit
def bit_sum(tree: Any) -> jax.Array:
    """[] uint32 that tells two trees of floats apart: Σ of all words, modulo 2³².

    Exact, hence the same for any layout over devices; leaves count by their place in the tree.
    """
    total = jnp.uint32(0)
    for x in jax.tree.leaves(tree):
        words = jax.lax.bitcast_convert_type(x, jnp.dtype(f"uint{8 * x.dtype.itemsize}"))
        total = 31 * total + jnp.sum(words, dtype=jnp.uint32)
    return total
