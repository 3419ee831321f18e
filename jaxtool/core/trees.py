"""Small questions about pytrees of arrays."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def abstract_like(tree: Any) -> Any:
    """Shapes, dtypes and shardings of a tree of device arrays: a target to restore into."""
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def num_parameters(tree: Any) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


def non_finite(tree: Any) -> list[str]:
    """Names of the device arrays that hold a NaN or an infinity: one pass over all of them."""
    floats = {
        jax.tree_util.keystr(path): x
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if jnp.issubdtype(x.dtype, jnp.inexact)
    }
    if not floats:
        return []
    flags = np.asarray(_are_finite(list(floats.values())))
    return [name for name, is_finite in zip(floats, flags, strict=True) if not is_finite]


@jax.jit
def _are_finite(arrays: list[jax.Array]) -> jax.Array:
    return jnp.stack([jnp.all(jnp.isfinite(x)) for x in arrays])


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
