"""The grid of the kernel over a cache: the steps in which queries see something, and no others.

Not covered: what a step computes (`pallas_attention`).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

_PARTS = 2  # of the grid: a chip of v4 or v5p has two cores, and each takes one


class Walk(NamedTuple):
    """The grid's steps: which queries meet which block of positions, one entry a step.

    An example of three blocks of queries that see 1, 3 and 2 blocks of positions, of 4 that there are:

      first [0 4 6]  queries [0 1 1 1 2 2 ...]  block [0 0 1 2 0 1 ...]  last [0 2 1]

    The first part of the grid has steps 0 to 3, the second steps 4 and 5. What follows in the tables is not
    read.
    """

    first: Int[Array, " bounds"]  # step at which each part begins; at the end, the number of steps
    queries: Int[Array, " steps"]
    block: Int[Array, " steps"]
    last: Int[Array, " P"]  # the last block of positions of each block of queries


def walk_of(last: Int[Array, " P"], num_blocks: int) -> Walk:
    """The walk over blocks 0..last[i] of positions for each block i of queries; none where last[i] is -1.

    The parts have as equal numbers of steps as whole blocks of queries allow.

    Args:
      num_blocks: of positions, more than any `last`.
    """
    count, counts = last.shape[0], last + 1
    ends = jnp.cumsum(counts)
    # Each step is compared with all starts: a scatter or a gather of single numbers is slow on TPUs.
    steps, starts = jnp.arange(count * num_blocks, dtype=jnp.int32), ends - counts
    begun = starts[None, :] <= steps[:, None]
    queries = jnp.sum(begun, axis=1, dtype=jnp.int32) - 1
    block = steps - jnp.max(jnp.where(begun, starts[None, :], 0), axis=1)
    bounds = [jnp.zeros(1, jnp.int32), ends[-1:]]
    if count >= _PARTS:
        middle = jnp.argmin(jnp.abs(2 * ends[:-1] - ends[-1]))
        bounds.insert(1, ends[middle][None])
    return Walk(jnp.concatenate(bounds).astype(jnp.int32), queries, block, last)


def walk_step(part: Any, t: Any, first: Any) -> Any:
    """Where round t of a part is in the tables. A part with fewer rounds names its last one again.

    Rounds below 0, in which only copies begin, name the first one. Named otherwise, what Pallas holds for the part's
    first queries would be written over the results of others.
    """
    return jnp.minimum(first[part] + jnp.maximum(t, 0), first[part + 1] - 1)


def whole_part(number: Any, divisor: int) -> Any:
    """number // divisor, of a number that is not negative."""
    return number if divisor == 1 else jax.lax.div(number, jnp.int32(divisor))
