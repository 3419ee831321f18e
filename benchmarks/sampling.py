"""Ways to draw a token: `python -m benchmarks.sampling [--json PATH]`.

Inverse CDF (ours) against Gumbel noise (`jax.random.categorical`, as most samplers), and the ways to
truncate: ours, the search alone, `lax.top_k` of a fixed head alone, and a full sort. Milliseconds per
call on random logits; log-probs are computed by all ways that have them in their loop.
"""

import argparse
import json
import time
from typing import Any

from jaxtool.cli import entry


def ways() -> dict[str, Any]:
    """Name -> function of (logits [B, V], uniforms [B, 2], key)."""
    import jax
    import jax.numpy as jnp

    from jaxtool.core.truncation import kept_floor
    from jaxtool.decode.sampling import RowSampling, inverse_cdf

    def rows(b: int, top_k: int = 0, top_p: float = 1.0) -> RowSampling:
        return RowSampling(
            temperature=jnp.ones(b),
            top_k=jnp.full(b, top_k, jnp.int32),
            top_p=jnp.full(b, top_p),
            min_p=jnp.zeros(b),
        )

    def gumbel(x: Any, u: Any, key: Any) -> Any:
        tokens = jax.random.categorical(key, x)
        logprobs = jax.nn.log_softmax(x, axis=-1)
        return tokens, jnp.take_along_axis(logprobs, tokens[:, None], axis=1)

    def sort(x: Any, u: Any, key: Any) -> Any:
        order = jnp.argsort(-x, axis=-1)
        probs = jax.nn.softmax(jnp.take_along_axis(x, order, axis=-1), axis=-1)
        before = jnp.cumsum(probs, axis=-1) - probs
        kept = jnp.where(before < 0.95, jnp.log(probs), -jnp.inf)
        return jnp.take_along_axis(order, jax.random.categorical(key, kept)[:, None], axis=-1)

    def floor_alone(x: Any, u: Any, key: Any) -> Any:
        b = len(x)
        weights = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
        return kept_floor(
            weights, jnp.zeros(b, jnp.int32), jnp.full(b, 0.95), jnp.zeros(b, jnp.float32)
        )

    return {
        "greedy": lambda x, u, key: jnp.argmax(x, axis=-1),
        "inverse CDF": lambda x, u, key: inverse_cdf(x, u),
        "Gumbel": gumbel,
        "inverse CDF, top-k 50": lambda x, u, key: inverse_cdf(x, u, rows(len(x), top_k=50)),
        "inverse CDF, top-p 0.95": lambda x, u, key: inverse_cdf(x, u, rows(len(x), top_p=0.95)),
        "threshold of top-p alone": floor_alone,
        "sort, top-p 0.95, Gumbel": sort,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    entry.add_json_flag(parser, "write the figures here as well")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    import jax
    import jax.numpy as jnp
    import numpy as np

    record = []
    for vocab in (4096, 49_152, 151_936):
        for batch in (16, 64):
            # Peaked as a trained policy's, and flat as an untrained one's: a nucleus of thousands.
            for spread in (6.0, 2.0):
                logits = spread * np.random.default_rng(0).standard_normal((batch, vocab))
                x = jnp.asarray(logits, jnp.float32)
                u = jnp.linspace(0.01, 0.99, 2 * batch).reshape(2, batch).T
                row: dict[str, Any] = {"vocab": vocab, "batch": batch, "spread": spread}
                for name, way in ways().items():
                    if name.startswith("sort") and vocab > 50_000 and batch > 16:
                        continue  # seconds a call
                    call = jax.jit(way)
                    key = jax.random.key(0)
                    jax.block_until_ready(call(x, u, key))
                    times = []
                    for _ in range(arguments.rounds):
                        started = time.perf_counter()
                        jax.block_until_ready(call(x, u, key))
                        times.append(time.perf_counter() - started)
                    row[name] = 1000 * sorted(times)[len(times) // 2]
                record.append(row)
                print("  ".join(f"{k} {v:.4g}" for k, v in row.items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
