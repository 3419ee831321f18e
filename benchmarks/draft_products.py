"""CPU time of SmolLM2's matrix products by rows, and whether more rows round otherwise: what a draft's pass costs.

Run as `python -m benchmarks.drafts --products`.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.peers import SMOLLM
from jaxtool.model.float_product import float_product

# Of a layer of SmolLM2 (queries and output, keys and values, gate and up, down) and its LM head.
_PRODUCTS = ((576, 1152), (576, 384), (576, 3072), (1536, 576), (576, 49_152))


def products(dtype: str) -> list[dict[str, Any]]:
    """CPU time of SmolLM2's matrix products by rows, and whether the first four rows keep their bits."""
    numbers = np.random.default_rng(0)
    pairs = {
        (k, n): tuple(
            jnp.asarray(numbers.standard_normal(shape), dtype) for shape in ((128, k), (k, n))
        )
        for k, n in _PRODUCTS
    }
    product = jax.jit(lambda x, w: float_product(x, w, 1))
    first: dict[tuple[int, int], np.ndarray] = {}
    found = []
    for rows in (4, 8, 16, 32, 64, 128):
        layers_ms, head_ms, is_same = 0.0, 0.0, True
        for k, n in _PRODUCTS:
            x, w = pairs[k, n]
            x = x[:rows]
            y = np.asarray(product(x, w))[:4]
            is_same &= np.array_equal(first.setdefault((k, n), y), y)
            ms = 1e3 * min(_cpu_s(product, x, w) for _ in range(5))
            if n == SMOLLM["vocab_size"]:
                head_ms += ms
            else:
                layers_ms += ms * SMOLLM["num_layers"]
        found.append(
            {
                "dtype": dtype,
                "rows": rows,
                "layers_ms": layers_ms,
                "head_ms": head_ms,
                "has_bits_of_4_rows": is_same,
            }
        )
        print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    return found


def _cpu_s(function: Any, *arguments: Any) -> float:
    started = time.process_time()
    jax.block_until_ready(function(*arguments))
    return time.process_time() - started
