"""The balanced split of a causal row over devices: of 2P chunks, device d works on chunks d and 2P - 1 - d.

Later tokens look at more keys: of P contiguous parts the last has 2 - 1/P times the mean work, and all wait for it.
Here all have the mean. P = 2 in pairs of chunks: contiguous, (0, 1) has 1 + 2 and (2, 3) has 3 + 4; balanced, (0, 3)
has 1 + 4 and (1, 2) has 2 + 3. Rows stay contiguous outside of attention: two permutations bring the queries, two
take the results back. The chunks are those of ring-flash-attention's zigzag and of Llama 3 (2407.21783, section 3.3.2).
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

MeshAxes = tuple[str, ...]
_Tree = TypeVar("_Tree")


def zigzag_columns(length: int, parts: int) -> np.ndarray:
    """Columns [T] of a row in the order of the devices that work on them: (4, 2) -> 0 3 1 2."""
    chunks = np.arange(length, dtype=np.int32).reshape(2 * parts, -1)
    return np.concatenate([chunks[[d, 2 * parts - 1 - d]].ravel() for d in range(parts)])


def to_zigzag(tree: _Tree, axes: MeshAxes, parts: int) -> _Tree:
    """Contiguous parts [B, T/P, ..] of a device to its two chunks, the earlier first; inside of shard_map."""
    to_even, to_odd = _routes(parts)

    def exchange(x: Array) -> Array:
        even, odd = jnp.split(x, 2, axis=1)
        even = jax.lax.ppermute(even, axes, to_even)
        odd = jax.lax.ppermute(odd, axes, to_odd)
        return _ordered(even, odd, axes)

    return jax.tree.map(exchange, tree)


def from_zigzag(x: Array, axes: MeshAxes, parts: int) -> Array:
    """The inverse of `to_zigzag`."""
    to_even, to_odd = _routes(parts)
    earlier, later = jnp.split(x, 2, axis=1)
    even, odd = jnp.split(_ordered(earlier, later, axes), 2, axis=1)
    even = jax.lax.ppermute(even, axes, [(to, source) for source, to in to_even])
    odd = jax.lax.ppermute(odd, axes, [(to, source) for source, to in to_odd])
    return jnp.concatenate([even, odd], axis=1)


def _routes(parts: int) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(from, to) of each device's first chunk, whose number 2d is even, and of its second, 2d + 1.

    Each device receives one of either: d and 2P - 1 - d are not both even.
    """

    def owner(chunk: int) -> int:
        return min(chunk, 2 * parts - 1 - chunk)

    return (
        [(d, owner(2 * d)) for d in range(parts)],
        [(d, owner(2 * d + 1)) for d in range(parts)],
    )


def _ordered(first: Array, second: Array, axes: MeshAxes) -> Array:
    """Both after one another, swapped on devices of odd number: (even, odd) <-> (earlier, later)."""
    is_odd = jax.lax.axis_index(axes) % 2 == 1
    return jnp.concatenate(
        [jnp.where(is_odd, second, first), jnp.where(is_odd, first, second)], axis=1
    )
