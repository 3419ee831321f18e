"""From which length on a tool's output should go by chunked append: `python -m benchmarks.forced_tokens`.

A token that rides the window takes one of its row's steps: a step's time over the rows that share it.
A chunk takes a call of its own, during which no row decodes, and costs nearly the same for one row as
for `append_rows`. Prints both for each length, with one output and with `append_rows` outputs at a
time, at the shapes of benchmarks/decode.py, and the first length at which a chunk is cheaper.
"""

import argparse
import functools
import json
import statistics
import time
from typing import Any

from benchmarks.peers import SHAPES
from jaxtool.cli import entry

LENGTHS = (4, 8, 16, 32, 64, 128)


def measure(shape: str, dtype: str, decode_rows: int, rounds: int) -> dict[str, Any]:
    """Milliseconds of riding and of a chunk, by output length."""
    import jax
    import numpy as np

    from jaxtool.core import rng
    from jaxtool.decode.config import EngineConfig
    from jaxtool.decode.engine import DecodeEngine
    from jaxtool.decode.pieces import Placement
    from jaxtool.model.config import ModelConfig
    from jaxtool.model.transformer import init_params
    from jaxtool.parallel.axis_rules import single_device

    model = ModelConfig(**SHAPES[shape], compute_dtype=dtype)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    chunks: dict[int, dict[int, float]] = {}
    step_ms = 0.0
    for length in LENGTHS:
        config = EngineConfig(
            decode_rows=decode_rows,
            max_tokens=512,
            min_view=512,
            window_steps=16,
            forced_tokens=length,
        )
        engine = DecodeEngine(
            model=model,
            config=config,
            sharding=single_device(),
            is_stop=np.zeros(model.vocab_size, bool),
        )
        engine.load(params)
        [prompt] = engine.prefill([range(3, 35)])
        engine.place(
            [
                Placement(
                    cache_row=engine.take_cache_row(),
                    prompt=prompt,
                    row_key=rng.row_key(0, i),
                    max_length=512,
                )
                for i in range(decode_rows)
            ]
        )
        if not step_ms:
            step_ms = _median_ms(functools.partial(_window, engine), rounds) / 16
        chunks[length] = {}
        for rows in (1, config.append_rows):
            outputs = {cache_row: [5] * length for cache_row in range(rows)}
            chunks[length][rows] = (
                _median_ms(functools.partial(_append, engine, outputs), rounds) / rows
            )
    table = {
        length: {
            "ride_ms": length * step_ms / decode_rows,
            "chunk_alone_ms": chunks[length][1],
            "chunk_shared_ms": chunks[length][config.append_rows],
        }
        for length in LENGTHS
    }
    cheaper = [n for n, row in table.items() if row["chunk_alone_ms"] < row["ride_ms"]]
    return {"step_ms": step_ms, "by_length": table, "chunk_pays_from": min(cheaper, default=None)}


def _window(engine: Any) -> None:
    engine._rows.lengths[:] = 40
    engine.fetch(engine.dispatch_window())


def _append(engine: Any, outputs: dict[int, list[int]]) -> None:
    """The chunks of some outputs, each row from the same place."""
    import jax

    engine._rows.lengths[:] = 40
    engine._append_long(outputs)
    jax.block_until_ready(engine._cache)


def _median_ms(call: Any, rounds: int) -> float:
    call()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return 1000 * statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", choices=SHAPES, action="append")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rounds", type=int, default=7)
    entry.add_json_flag(parser, "write the figures here as well")
    arguments = parser.parse_args()
    record = {}
    for shape in arguments.shape or ["small"]:
        for decode_rows in (16, 64):
            found = measure(shape, arguments.dtype, decode_rows, arguments.rounds)
            record[f"{shape} {decode_rows} decode rows"] = found
            print(f"{shape} {decode_rows} decode rows: step {found['step_ms']:.2f} ms", flush=True)
            for length, row in found["by_length"].items():
                print(
                    f"  {length:4d} tokens: ride {row['ride_ms']:.2f} ms, chunk alone "
                    f"{row['chunk_alone_ms']:.2f} ms, shared {row['chunk_shared_ms']:.2f} ms"
                )
            print(f"  a chunk alone pays from {found['chunk_pays_from']} tokens on", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
