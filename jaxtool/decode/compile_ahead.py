"""Compiles the whole fixed set of programs before the first token, with a report of progress.

`lower` with the shapes and layouts of the real arrays fills the same caches that calls look into, so
a call afterwards compiles nothing; with the persistent cache the next process only loads.
"""

import concurrent.futures
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxtool.decode import programs
from jaxtool.decode.config import EngineConfig
from jaxtool.decode.programs import Rows
from jaxtool.decode.sampling import Draw
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import KVCache, make_cache
from jaxtool.model.transformer import Params
from jaxtool.parallel.axis_rules import Sharding

Key = tuple[Any, ...]
Report = Callable[[int, int, str], None]


def compile_all(
    params: Params,
    cache: KVCache,
    rows: Rows,
    is_stop: jax.Array,
    *,
    model: ModelConfig,
    config: EngineConfig,
    sharding: Sharding,
    draws: Sequence[Draw],
    longest_prompt: int,
    report: Report,
) -> set[Key]:
    """Prefill and placement of each bucket, appends of each view, windows of each width and view.

    Args:
      report: told (programs done, programs in all, name of the one just done).

    Returns:
      The keys of what was compiled: name and shape.
    """
    statics: dict[str, Any] = {"config": model, "sharding": sharding}
    tasks: dict[Key, Callable[[], object]] = {}
    for view in config.views:
        cache_rows = np.zeros(config.append_rows, np.int32)
        tokens = np.zeros((config.append_rows, config.forced_tokens), np.int32)
        tasks["append", view] = functools.partial(
            _compile,
            programs.append,
            params,
            cache,
            cache_rows,
            tokens,
            cache_rows,
            view=view,
            **statics,
        )
        for width in config.widths:
            chosen = np.zeros(width, np.int32)
            for draw in draws:
                tasks["window", width, view, draw] = functools.partial(
                    _compile,
                    programs.window,
                    params,
                    cache,
                    rows.take(chosen),
                    None if width == config.num_cache_rows else chosen,
                    np.int32(1),
                    is_stop,
                    draw=draw,
                    steps=config.window_steps,
                    view=view,
                    **statics,
                )
    enough = next(b for b in config.prompt_buckets if b >= longest_prompt - 1)
    buckets = [bucket for bucket in config.prompt_buckets if bucket <= enough]
    for bucket in buckets:
        tasks["prefill", bucket] = functools.partial(
            _compile_prompts, params, cache, bucket, config, statics
        )
    made: set[Key] = set()
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
        running = {threads.submit(task): key for key, task in tasks.items()}
        for done in concurrent.futures.as_completed(running):
            done.result()
            key = running[done]
            made.add(key)
            report(len(made), len(tasks), " ".join(map(str, key)))
    return made | {("place", bucket) for bucket in buckets}


def _compile(program: Any, *args: Any, **statics: Any) -> jax.stages.Compiled:
    return program.lower(*args, **statics).compile()


def _compile_prompts(
    params: Params, cache: KVCache, bucket: int, config: EngineConfig, statics: dict[str, Any]
) -> None:
    """Prefill of a bucket, and the copy of what it gives."""
    chunk, rows = config.chunk_of(bucket), config.prefill_rows
    tokens = np.zeros((rows, chunk), np.int32)
    shapes = jax.eval_shape(lambda: make_cache(statics["config"], rows, bucket))
    prompts = jax.tree.map(
        lambda x, layout: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=layout),
        shapes,
        programs.cache_layout(shapes, statics["sharding"]),
    )
    if chunk == bucket:
        _compile(programs.prefill, params, tokens, **statics)
    else:
        programs.empty_cache(rows=rows, positions=bucket, **statics)
        _compile(programs.prefill_chunk, params, prompts, tokens, np.int32(0), **statics)
    indices = np.zeros(rows, np.int32)
    _compile(programs.place, cache, prompts, indices, indices, sharding=statics["sharding"])
