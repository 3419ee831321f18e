"""The programs of an RL run as it would start them on a slice, from shapes alone.

They are the run's own functions with the run's own shardings; no parameter is ever made. What they
take is found as the run finds it: the layout of the optimizer state is that which `make_state` gives,
the decoder's that which `publish` and `empty_cache` give.

The decoder's programs are those of one host: on a slice of several hosts each has an engine of its own
on its own devices, and `EngineConfig.decode_rows` is per host. Publication runs on the learner's mesh.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxtool.decode import programs as decoder
from jaxtool.decode.memory import plan_memory
from jaxtool.decode.publish import publish_ends, publish_layer
from jaxtool.learn.state import check_micro_batch_rows, check_row_tokens
from jaxtool.model.config import ModelConfig
from jaxtool.model.kv_cache import make_cache
from jaxtool.model.param_axes import CACHE_AXES, check_divides, param_axes, param_shapes
from jaxtool.parallel.axis_rules import Sharding, decode
from jaxtool.parallel.host_arrays import decode_mesh, moves_shards
from jaxtool.parallel.mesh import make_mesh
from jaxtool.plan.chips import GIB, Slice, slice_devices
from jaxtool.plan.learner_programs import LearnerPrograms, learner_programs
from jaxtool.plan.program import (
    APPEND,
    PLACE,
    PREFILL,
    PUBLISH,
    PUBLISH_ENDS,
    WINDOW,
    Program,
    RunPrograms,
    placed,
    results,
    shard_bytes,
)
from jaxtool.train.overlapped_rollouts import check_one_host
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import longest_prompt


def run_programs(config: RlConfig, tpu: Slice) -> RunPrograms:
    """Every program of one RL step on a slice, at the largest shape of each.

    Raises:
      ValueError: what the run would raise at its start: the mesh does not divide the devices, the
        model, the rows or the positions, `tensor` does not divide a host, or the rows need more memory
        than the decoder may take.
    """
    check_one_host(config.schedule.max_staleness, tpu.num_hosts)
    model = config.policy.model_config()
    mesh = make_mesh(config.mesh, slice_devices(tpu))
    sharding, over_all = Sharding(mesh, config.axes), Sharding(mesh, decode(config.axes))
    decoding = Sharding(_host_mesh(mesh, tpu), decode(config.axes))
    check_divides(model, sharding)
    check_divides(model, decoding)
    check_micro_batch_rows(config.grpo.micro_batch_rows, sharding)
    check_row_tokens(config.pack.row_tokens, sharding)
    shapes = param_shapes(model)
    params = placed(shapes, sharding.tree(param_axes(shapes)))
    memory = plan_memory(
        config.engine.numerics.model(model),
        config.engine,
        decoding,
        longest_prompt=longest_prompt(config.rollout, config.engine),
        free=tpu.chip.hbm_gib * GIB - shard_bytes(params),
    )
    config = dataclasses.replace(config, engine=memory.config)
    learner = learner_programs(config, sharding, params)
    publication, published = _publication(config, over_all, decoding, learner)
    decoder_programs, cache = _decoder(config, decoding, published, learner.held)
    resident = learner.resident | {
        "published copy": shard_bytes(published),
        "KV cache": shard_bytes(cache),
    }
    return RunPrograms(
        programs=(*decoder_programs, *publication, *learner.programs),
        resident=resident,
        engine=config.engine,
        host=dict(decoding.mesh.shape),
    )


def _host_mesh(mesh: Mesh, tpu: Slice) -> Mesh:
    """`decode_mesh(mesh)` on a slice that is a host: libtpu compiles for whole slices only."""
    if tpu.num_hosts == 1:  # v5e-8 and v6e-8 as well, which libtpu describes as two hosts
        return mesh
    shape = decode_mesh(mesh).devices.shape
    devices = np.array(slice_devices(tpu.host), object).reshape(shape)
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


def _publication(
    config: RlConfig, over_all: Sharding, decoding: Sharding, learner: LearnerPrograms
) -> tuple[tuple[Program, ...], Any]:
    """Programs that make the decoder's copy, and the copy as one host has it."""
    weights = config.engine.numerics.weights
    model = config.engine.numerics.model(config.policy.model_config())
    statics = (model, over_all, weights)
    params = learner.policy
    ends = {name: x for name, x in params.items() if name != "layers"}
    layer_args = (params["layers"], np.int32(0))

    def on_host(x: Any) -> Any:
        own = NamedSharding(decoding.mesh, x.sharding.spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own)

    made = results(over_all, publish_ends, ends, *statics)
    layer = results(over_all, publish_layer, *layer_args, *statics)
    moves = decoding.mesh is not over_all.mesh and moves_shards(over_all.mesh)
    others = tuple(name for name in learner.held if name != "parameters")
    beside = (*others, *(() if config.unloads_decoder else ("KV cache",)))
    shape = f"float32 to {'int8' if weights == 'int8' else model.compute_dtype}"

    def program(name: str, trace: Callable[[], Any], result: Any, *more: str) -> Program:
        return Program(
            name=name,
            shape=shape,
            trace=trace,
            num_devices=over_all.mesh.size,
            beside=(*beside, *more),
            moved=(len(jax.tree.leaves(result)), shard_bytes(result)) if moves else (0, 0.0),
        )

    programs = (
        program(PUBLISH_ENDS, lambda: publish_ends.trace(ends, *statics), made, "parameters"),
        # The last layer, whose copy is counted twice: so is its way to another host.
        program(
            PUBLISH, lambda: publish_layer.trace(*layer_args, *statics), layer, "published copy"
        ),
    )
    copy = {**made, "layers": (layer,) * model.num_layers}
    return programs, jax.tree.map(on_host, copy)


def _decoder(
    config: RlConfig, sharding: Sharding, published: Any, held: tuple[str, ...]
) -> tuple[tuple[Program, ...], Any]:
    """Programs of one host's engine, and its cache.

    Args:
      held: what the learner keeps in memory meanwhile.
    """
    engine = config.engine
    model = engine.numerics.model(config.policy.model_config())
    statics: dict[str, Any] = {"config": model, "sharding": sharding}
    cache = _cache(model, sharding, engine.num_cache_rows, engine.max_tokens)
    bucket = next(
        b for b in engine.prompt_buckets if b >= longest_prompt(config.rollout, config.engine) - 1
    )
    prompts = _cache(model, sharding, engine.prefill_rows, bucket)
    programs = (
        _window(config, published, cache, held, statics),
        _prefill(config, published, prompts, (*held, "KV cache"), statics),
        Program(
            name=PLACE,
            shape=f"{engine.prefill_rows} rows x {bucket} tokens",
            trace=lambda: decoder.place.trace(
                cache, prompts, *_indices(engine.prefill_rows, 2), sharding=sharding
            ),
            num_devices=sharding.mesh.size,
            beside=(*held, "published copy"),
            touched_bytes=2 * shard_bytes(prompts),
        ),
        _append(config, published, cache, held, statics),
    )
    return programs, cache


def _window(
    config: RlConfig, published: Any, cache: Any, held: tuple[str, ...], statics: dict[str, Any]
) -> Program:
    engine, sharding = config.engine, statics["sharding"]
    width, view, steps = engine.decode_rows, engine.views[-1], engine.window_steps
    is_whole = width == engine.num_cache_rows
    read = shard_bytes(cache) * width / engine.num_cache_rows * view / engine.max_tokens
    is_stop = jax.ShapeDtypeStruct(
        (statics["config"].vocab_size,), bool, sharding=sharding.named(None)
    )
    return Program(
        name=WINDOW,
        shape=f"{width} rows x {steps} steps, view {view}",
        trace=lambda: decoder.window.trace(
            published,
            cache,
            decoder.idle_rows(width, engine.forced_tokens),
            None if is_whole else np.zeros(width, np.int32),
            np.int32(1),
            is_stop,
            draw=config.sampling.draw,
            steps=steps,
            view=view,
            **statics,
        ),
        num_devices=sharding.mesh.size,
        beside=held,
        while_trips=steps,
        touched_bytes=steps * (shard_bytes(published) + read),
    )


def _prefill(
    config: RlConfig,
    published: Any,
    prompts: Any,
    beside: tuple[str, ...],
    statics: dict[str, Any],
) -> Program:
    engine = config.engine
    bucket = jax.tree.leaves(prompts)[0].shape[2]
    chunk = engine.chunk_of(bucket)
    tokens = np.zeros((engine.prefill_rows, chunk), np.int32)

    def trace() -> Any:
        if chunk == bucket:
            return decoder.prefill.trace(published, tokens, **statics)
        return decoder.prefill_chunk.trace(published, prompts, tokens, np.int32(0), **statics)

    return Program(
        name=PREFILL,
        shape=f"{engine.prefill_rows} prompts x {chunk} tokens",
        trace=trace,
        num_devices=statics["sharding"].mesh.size,
        beside=beside,
    )


def _append(
    config: RlConfig, published: Any, cache: Any, held: tuple[str, ...], statics: dict[str, Any]
) -> Program:
    engine, view = config.engine, config.engine.views[-1]
    rows, columns = engine.append_rows, engine.forced_tokens
    cache_rows, starts = _indices(rows, 2)
    share = rows / engine.num_cache_rows
    return Program(
        name=APPEND,
        shape=f"{rows} rows x {columns} tokens, view {view}",
        trace=lambda: decoder.append.trace(
            published,
            cache,
            cache_rows,
            np.zeros((rows, columns), np.int32),
            starts,
            view=view,
            **statics,
        ),
        num_devices=statics["sharding"].mesh.size,
        beside=held,
        touched_bytes=shard_bytes(published) + shard_bytes(cache) * share,
    )


def _indices(rows: int, count: int) -> list[np.ndarray]:
    return [np.zeros(rows, np.int32) for _ in range(count)]


def _cache(model: ModelConfig, sharding: Sharding, rows: int, positions: int) -> Any:
    """Shapes and layout of a cache, which every program of the decoder constrains."""
    shapes = jax.eval_shape(lambda: make_cache(model, rows, positions))
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=sharding.named(*CACHE_AXES[: x.ndim])
        ),
        shapes,
    )
