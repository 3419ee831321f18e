"""Packed rows of numbers for tests of token losses."""

import jax
import jax.numpy as jnp
import numpy as np


def row(*values: float) -> jax.Array:
    """[1, T] float32."""
    return jnp.asarray([values], jnp.float32)


def log_row(*ratios: float) -> jax.Array:
    return jnp.log(row(*ratios))


def random_rows(seed: int, rows: int = 4, t: int = 12):
    """Packed rows of random trajectories; each row ends in padding."""
    rng = np.random.default_rng(seed)
    ids = np.full((rows, t), -1, np.int32)
    number = 0
    for r in range(rows):
        position = 0
        while position < t - 2:
            length = int(rng.integers(1, 5))
            ids[r, position : min(position + length, t - 1)] = number
            position += length
            number += 1
    mask = (rng.random((rows, t)) < 0.6) & (ids >= 0)
    return rng.normal(size=(rows, t)).astype(np.float32), mask, ids, number
