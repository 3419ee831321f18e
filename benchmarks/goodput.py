"""What a token costs as rows, context, tool calls and the cache's allocation grow.

  python -m benchmarks.goodput [--json PATH] [--rounds 3]

A random policy of the small shape in float32. Each point decodes full windows of rows that all hold
`context` tokens already, and counts the time from dispatch to fetch; a call puts 8 forced tokens into a row.
Cost is microseconds of wall clock per sampled token, the median of rounds in which all points are
taken in turn. Not covered: prefill, waiting for tools (see benchmarks/decode.py), other shapes.

--json writes {"points": [{"rows", "context", "allocation", "calls", "view", "us_per_token"}], "summary",
"machine"}. `summary`:
  allocation_ratio   cost with 4 times the cache allocated over the cost without, live tokens the same
                     (the largest of all contexts): 1 means that nobody pays for what is not used
  batch_ratio        cost at 4 rows over cost at 64 rows, context 128
  context_ratio      cost at context 1536 over cost at 128, 16 rows
  call_ratio         cost with 6 calls per 64 tokens over none, 16 rows, context 128
"""

import argparse
import dataclasses
import json
import statistics
import time
from typing import Any

import jax
import numpy as np

from benchmarks.peers import SMALL, machine
from jaxtool.cli import entry
from jaxtool.core import rng
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.pieces import Placement
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import Params, init_params
from jaxtool.parallel.axis_rules import single_device

_NEW, _WINDOW, _FORCED = 64, 16, 8


@dataclasses.dataclass(frozen=True)
class Point:
    rows: int
    context: int
    allocation: int
    calls: int = 0


POINTS = (
    *(Point(rows, 128, 2048) for rows in (4, 16, 64)),
    *(Point(16, context, 2048) for context in (512, 1536)),
    *(Point(16, context, 8192) for context in (128, 512, 1536)),
    *(Point(16, 128, 2048, calls) for calls in (2, 6)),
)


class Decoding:
    """An engine whose rows are at one point of the curve; `round` decodes 64 tokens of each."""

    def __init__(self, point: Point, model: ModelConfig, params: Params):
        config = EngineConfig(
            decode_rows=point.rows,
            max_tokens=point.allocation,
            window_steps=_WINDOW,
            min_view=256,
            prefill_rows=1,
            min_prompt_bucket=128,
            forced_tokens=_FORCED,
        )
        self.engine = DecodeEngine(
            model=model,
            config=config,
            sharding=single_device(),
            is_stop=np.zeros(model.vocab_size, bool),
        )
        self.engine.load(params)
        self.point = point
        [self.prompt] = self.engine.prefill([[3 + i % 4000 for i in range(point.context)]])

    @property
    def view(self) -> int:
        longest = self.point.context + _NEW
        views = self.engine.config.views
        return next((v for v in views if v > longest), views[-1])

    def round(self) -> float:
        """Microseconds per sampled token."""
        engine, point = self.engine, self.point
        cache_rows = [engine.take_cache_row() for _ in range(point.rows)]
        limit = point.context + _NEW + point.calls * _FORCED
        engine.place(
            [
                Placement(
                    cache_row=s, prompt=self.prompt, row_key=rng.row_key(0, i), max_length=limit
                )
                for i, s in enumerate(cache_rows)
            ]
        )
        before, calls = engine.counts.sampled_tokens, point.calls
        started = time.perf_counter()
        while engine.is_any_running:
            if calls:
                engine.append({cache_row: [5] * _FORCED for cache_row in cache_rows})
                calls -= 1
            engine.fetch(engine.dispatch_window())
        seconds = time.perf_counter() - started
        for cache_row in cache_rows:
            engine.release(cache_row)
        return 1e6 * seconds / (engine.counts.sampled_tokens - before)


def measure(rounds: int) -> list[dict[str, Any]]:
    model = ModelConfig(**SMALL)
    params = jax.jit(init_params, static_argnums=0)(model, jax.random.key(0))
    decodings = [Decoding(point, model, params) for point in POINTS]
    seen: list[list[float]] = [[] for _ in decodings]
    for turn in range(rounds + 1):
        for decoding, values in zip(decodings, seen, strict=True):
            cost = decoding.round()
            if turn:  # the first compiles
                values.append(cost)
    return [
        dataclasses.asdict(d.point) | {"view": d.view, "us_per_token": statistics.median(values)}
        for d, values in zip(decodings, seen, strict=True)
    ]


def summary(points: list[dict[str, Any]]) -> dict[str, float]:
    cost = {
        Point(**{k: p[k] for k in ("rows", "context", "allocation", "calls")}): p for p in points
    }

    def at(*fields: int) -> float:
        return cost[Point(*fields)]["us_per_token"]

    return {
        "allocation_ratio": max(at(16, c, 8192) / at(16, c, 2048) for c in (128, 512, 1536)),
        "batch_ratio": at(4, 128, 2048) / at(64, 128, 2048),
        "context_ratio": at(16, 1536, 2048) / at(16, 128, 2048),
        "call_ratio": at(16, 128, 2048, 6) / at(16, 128, 2048),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    entry.add_json_flag(parser, "write all figures here")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    points = measure(arguments.rounds)
    for point in points:
        print("  ".join(f"{name} {value:.4g}" for name, value in point.items()))
    record = {"points": points, "summary": summary(points), "machine": machine({})}
    print(json.dumps(record["summary"], indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(record, indent=1))


if __name__ == "__main__":
    entry.prepare()
    main()
