"""Random keys by purpose: a sampled token depends on (seed, step, problem, sample, position) only.

Host side gives each row two words of key data; the device folds in the position. Nothing here
depends on cache rows, batch order, tool latency or the number of hosts.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.core.seeds import stream_seed


def key(seed: int, *path: str | int) -> jax.Array:
    """Typed JAX key of the stream named by `path`."""
    return jax.random.wrap_key_data(jnp.asarray(row_key(seed, *path)))


def row_key(seed: int, *path: str | int) -> np.ndarray:
    """[2] uint32 key data of the stream named by `path`, for example (step, problem_id, sample)."""
    word = stream_seed(seed, *path)
    return np.array([word >> 32, word & 0xFFFFFFFF], dtype=np.uint32)
