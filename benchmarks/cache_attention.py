"""A decoding step's attention on this machine: queries times keys, over keys times queries.

  python -m benchmarks.cache_attention [--json PATH]     (one minute; two orders of the same sums, for CPUs)

One query a row over all of a layer's cache, 20 steps in one program, each order 15 rounds in turns. What
`jaxtool.model.attention_backends.keys_go_first` takes is marked "chosen". Shapes: heads of the small shape
of benchmarks/decode.py, of Qwen2.5-0.5B and of SmolLM2-135M.

--json writes {"rows": [{"shape", "dtype", "rows", "positions", "key_mib", "queries_first_us", "keys_first_us"
(the quickest round each, per step and layer), "ratio" (of their medians), "chosen"}], "machine"}.
"""

import argparse
import functools
import json
import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.peers import SHAPES, machine
from jaxtool.cli import entry
from jaxtool.model.attention import cached_attention
from jaxtool.model.attention_backends import keys_go_first
from jaxtool.model.kv_cache import LayerCache
from jaxtool.parallel.axis_rules import single_device

STEPS = 20
ROUNDS = 15
CASES = (
    ("small", "float32", 32, 128),
    ("small", "float32", 256, 96),
    ("small", "float32", 16, 256),
    ("small", "float32", 16, 1024),
    ("small", "float32", 48, 512),
    ("small", "float32", 64, 160),
    ("small", "bfloat16", 48, 512),
    ("Qwen2.5-0.5B", "float32", 16, 512),
    ("SmolLM2-135M", "float32", 16, 512),
)


@functools.partial(jax.jit, static_argnames=("keys_first",))
def steps(q: jax.Array, cache: LayerCache, positions: jax.Array, *, keys_first: bool) -> jax.Array:
    """Each step's queries depend on the step before, so that none is left out."""

    def step(_: jax.Array, q: jax.Array) -> jax.Array:
        return q + 1e-6 * cached_attention(q, cache, positions, keys_first=keys_first)

    return jax.lax.fori_loop(0, STEPS, step, q)


def measure(name: str, dtype: str, rows: int, positions: int) -> dict[str, Any]:
    shape = SHAPES[name]
    size = (rows, shape["num_kv_heads"], positions, shape["head_dim"])
    keys = jax.random.split(jax.random.key(0), 3)
    cache = LayerCache(*(jax.random.normal(key, size).astype(dtype) for key in keys[:2]))
    q = jax.random.normal(keys[2], (rows, 1, shape["num_heads"], shape["head_dim"])).astype(dtype)
    at = jnp.full((rows, 1), positions - 2, jnp.int32)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for number in range(ROUNDS + 1):  # the first compiles
        for keys_first, measured in seconds.items():
            started = time.perf_counter()
            steps(q, cache, at, keys_first=keys_first).block_until_ready()
            if number:
                measured.append((time.perf_counter() - started) / STEPS)
    medians = {order: statistics.median(measured) for order, measured in seconds.items()}
    return {
        "shape": name,
        "dtype": dtype,
        "rows": rows,
        "positions": positions,
        "key_mib": cache.k.nbytes / 2**20,
        "queries_first_us": 1e6 * min(seconds[False]),
        "keys_first_us": 1e6 * min(seconds[True]),
        "ratio": medians[False] / medians[True],
        "chosen": keys_go_first(q, cache, single_device()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_json_flag(parser, "write the figures here as well")
    arguments = parser.parse_args()
    rows = []
    for case in CASES:
        rows.append(row := measure(*case))
        print(
            f"{row['shape']:13} {row['dtype']:9} {row['rows']:4} rows {row['positions']:5} positions "
            f"{row['key_mib']:6.2f} MiB  {row['queries_first_us']:6.0f} {row['keys_first_us']:6.0f} us "
            f" {row['ratio']:.2f} x{'  chosen' if row['chosen'] else ''}",
            flush=True,
        )
    if arguments.json:
        found = {"rows": rows, "machine": machine({})}
        arguments.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
