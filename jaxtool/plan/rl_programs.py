"""The programs of an RL run as it would start them on a slice, from shapes alone.

They are the run's own functions with the run's own shardings; no parameter is ever made. The decoder's
programs come from the table that its engine calls. The optimizer state has the sharding that `make_state`
gives, the decoder's copy that of `publish`.

The decoder's programs are those of one host: on a slice of several hosts each has an engine of its own
on its own devices, and `EngineConfig.decode_rows` is per host. Publication runs on the learner's mesh.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxtool.decode.config import EngineConfig
from jaxtool.decode.device_program import DeviceProgram
from jaxtool.decode.memory import plan_memory
from jaxtool.decode.program_table import ProgramTable
from jaxtool.decode.publish import publication
from jaxtool.decode.sampling import SamplingMode
from jaxtool.model.attention_backends import cached_backend
from jaxtool.model.config import ModelConfig
from jaxtool.model.param_axes import param_axes, param_shapes
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.host_arrays import decode_mesh, moves_shards
from jaxtool.parallel.mesh import make_mesh
from jaxtool.plan.chips import GIB, Slice, slice_devices
from jaxtool.plan.kernels import KernelSteps, cache_steps
from jaxtool.plan.learner_programs import LearnerPrograms, learner_programs
from jaxtool.plan.paged_rows import PagedRows
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
from jaxtool.train.devices import check_shardings
from jaxtool.train.rl_config import RlConfig, samplings_of
from jaxtool.train.rollout_worker import longest_prompt


def run_programs(
    config: RlConfig,
    tpu: Slice,
    *,
    live_tokens: float | None = None,
    rows_of: Callable[[EngineConfig], PagedRows] | None = None,
) -> RunPrograms:
    """Every program of one RL step on a slice, at the largest shape of each.

    Args:
      live_tokens: that a row holds while it decodes, on average; None: half of `max_tokens`.
      rows_of: what a host's pool of pages does in a step, see `paged_rows`; None: all rows decode all the time.

    Raises:
      ValueError: what the run refuses at its start, by the same functions: `make_mesh`, `decode_mesh`,
        `check_shardings` and `plan_memory`.
    """
    model = config.policy.model_config()
    mesh = make_mesh(config.mesh, slice_devices(tpu))
    sharding, over_all = Sharding(mesh, config.axes), Sharding(mesh, config.decoder_rules)
    decoding = Sharding(_host_mesh(mesh, over_all.rules, tpu), over_all.rules)
    check_shardings(config, model, sharding, decoding)
    shapes = param_shapes(model)
    params = placed(shapes, sharding.tree(param_axes(shapes)))
    memory = plan_memory(
        config.engine.numerics.model(model),
        config.engine,
        decoding,
        longest_prompt=longest_prompt(config.rollout, config.engine),
        free=tpu.chip.hbm_gib * GIB - (0 if config.parameters_leave else shard_bytes(params)),
    )
    config = dataclasses.replace(config, engine=memory.config)
    learner = learner_programs(config, sharding, params)
    publishers, published = _publication(config, over_all, decoding, learner)
    live = config.engine.max_tokens / 2 if live_tokens is None else live_tokens
    is_paged = memory.config.pages is not None and rows_of is not None
    paged = rows_of(memory.config) if is_paged and rows_of is not None else None
    decoder_programs, cache = _decoder(config, decoding, published, learner.decoding, live, paged)
    resident = learner.resident | {
        "published copy": shard_bytes(published),
        "KV cache": shard_bytes(cache),
    }
    return RunPrograms(
        programs=(*decoder_programs, *publishers, *learner.programs),
        resident=resident,
        engine=config.engine,
        host=dict(decoding.mesh.shape),
        resting=sum(learner.resident[x] for x in learner.held if x not in learner.decoding),
        paged=paged,
        page_bytes=shard_bytes(cache) / config.engine.pages.num_pages if config.engine.pages else 0,
    )


def _host_mesh(mesh: Mesh, rules: AxisRules, tpu: Slice) -> Mesh:
    """`decode_mesh(mesh, rules)` on a slice of one host: libtpu compiles for whole slices only."""
    if tpu.num_hosts == 1:  # v5e-8 and v6e-8 as well, which libtpu describes as two hosts
        return mesh
    shape = decode_mesh(mesh, rules).devices.shape
    devices = np.array(slice_devices(tpu.host), object).reshape(shape)
    return Mesh(devices, mesh.axis_names, axis_types=mesh.axis_types)


def _publication(
    config: RlConfig, over_all: Sharding, decoding: Sharding, learner: LearnerPrograms
) -> tuple[tuple[Program, ...], Any]:
    """Programs that make the decoder's copy, and the copy as one host has it."""
    weights = config.engine.numerics.weights
    model = config.engine.numerics.model(config.policy.model_config())
    ends, layer = publication(learner.policy, model, over_all, weights)

    def result(program: DeviceProgram) -> Any:
        return results(over_all, program.function, *program.arguments(), **program.statics)

    def on_host(x: Any) -> Any:
        own = NamedSharding(decoding.mesh, x.sharding.spec)
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=own)

    ends_shapes, layer_shapes = result(ends), result(layer)
    moves = decoding.mesh is not over_all.mesh and moves_shards(over_all.mesh, over_all.rules)
    others = tuple(name for name in learner.decoding if name != "parameters")
    other_resident = (*others, *(() if config.unloads_decoder else ("KV cache",)))

    def planned(name: str, program: DeviceProgram, shapes: Any, *more: str) -> Program:
        return Program(
            name=name,
            shape=f"float32 to {'int8' if weights == 'int8' else model.compute_dtype}",
            trace=program.trace,
            num_devices=over_all.mesh.size,
            other_resident=(*other_resident, *more),
            moved=(len(jax.tree.leaves(shapes)), shard_bytes(shapes)) if moves else (0, 0.0),
        )

    programs = (
        planned(PUBLISH_ENDS, ends, ends_shapes, "parameters"),
        # The last layer, whose copy is counted twice: so is its way to another host.
        planned(PUBLISH, layer, layer_shapes, "published copy"),
    )
    copy = {**ends_shapes, "layers": (layer_shapes,) * model.num_layers}
    return programs, jax.tree.map(on_host, copy)


def _decoder(
    config: RlConfig,
    sharding: Sharding,
    published: Any,
    held: tuple[str, ...],
    live: float,
    paged: PagedRows | None,
) -> tuple[tuple[Program, ...], Any]:
    """The largest programs of one host's engine, and its cache.

    Args:
      held: what the learner keeps in memory meanwhile.
      live: tokens of a row, on average.
      paged: rows and their tokens in a pool of pages.
    """
    engine, pages = config.engine, config.engine.pages
    table = ProgramTable(
        model=engine.numerics.model(config.policy.model_config()),
        config=engine,
        sharding=sharding,
        params=published,
    )
    table = dataclasses.replace(table, cache=table.cache_shapes(), is_stop=table.is_stop_shape())
    longest = longest_prompt(config.rollout, engine)
    modes: list[SamplingMode] = [sampling.sampling_mode for sampling in samplings_of(config)]
    mode = (
        "mixed" if "mixed" in modes else modes[0]
    )  # validations may truncate where training does not
    window, prefill, place, append = table.largest(mode, longest)
    width, view = engine.decode_rows, engine.views[-1]
    bucket = engine.bucket_of(longest)
    of_prompt, of_append = engine.chunk_of(bucket), engine.append_rows
    weights = shard_bytes(published)
    positions = engine.num_cache_rows * engine.max_tokens if pages is None else pages.pool_tokens
    cache_row = shard_bytes(table.cache) / positions * engine.max_tokens
    page = None if pages is None else pages.page_tokens
    over_cache = functools.partial(_over_cache, table.model, sharding)
    rows, live = (float(width), live) if paged is None else (paged.rows, paged.live_tokens)
    of_window = over_cache(rows=rows, columns=1, start=live, positions=view, page=page)
    # The kernel counts what it reads itself; XLA reads the whole view, with pages a copy of it as well.
    read = 0.0 if of_window else width * cache_row * view / engine.max_tokens
    read *= 1 if page is None else 3

    planned = functools.partial(_planned, sharding.mesh.size)
    steps = engine.window_steps
    programs = (
        planned(
            WINDOW,
            window,
            f"{width} rows x {steps} steps, view {view}{_pool_text(engine)}",
            held,
            while_trips=steps,
            touched_bytes=steps * (weights + read),
            over_cache=of_window,
        ),
        planned(
            PREFILL,
            prefill,
            f"{engine.prefill_rows} prompts x {of_prompt} tokens",
            (*held, "KV cache"),
            over_cache=over_cache(
                rows=engine.prefill_rows,
                columns=of_prompt,
                start=bucket - of_prompt,
                positions=bucket,
                is_anywhere=False,
            ),
        ),
        planned(
            PLACE,
            place,
            f"{engine.prefill_rows} rows x {bucket} tokens",
            (*held, "published copy"),
            touched_bytes=2 * shard_bytes(table.prompt_shapes(bucket)),
        ),
        planned(
            APPEND,
            append,
            f"{of_append} rows x {engine.forced_tokens} tokens, view {view}",
            held,
            touched_bytes=weights + of_append * cache_row,
            over_cache=over_cache(
                rows=of_append,
                columns=engine.forced_tokens,
                start=live,
                positions=view,
                page=page,
            ),
        ),
    )
    return programs, table.cache


def _pool_text(engine: EngineConfig) -> str:
    pages = engine.pages
    return "" if pages is None else f", {pages.num_pages} pages of {pages.page_tokens}"


def _over_cache(
    model: ModelConfig, sharding: Sharding, *, rows: float, is_anywhere: bool = True, **shape: Any
) -> KernelSteps | None:
    """Steps of the kernel over the cache on a device; None where XLA computes this attention.

    Args:
      rows: of all devices.
      shape: of `cache_steps`.
    """
    held = shape.get("page") or shape["positions"]
    if cached_backend(model, held, sharding) != "pallas_tpu":
        return None
    _, kv_heads = sharding.mapped_heads
    is_int8 = model.cache == "int8"
    return cache_steps(
        rows=rows / sharding.parts("batch"),
        kv_heads=model.num_kv_heads // (sharding.parts(kv_heads) if kv_heads else 1),
        group=model.num_heads // model.num_kv_heads,
        head_dim=model.head_dim,
        value_bytes=1 if is_int8 else model.dtype.itemsize,
        scale_bytes=4 if is_int8 else 0,
        is_anywhere=is_anywhere,
        **shape,
    )


def _planned(
    num_devices: int,
    name: str,
    program: DeviceProgram,
    shape: str,
    other_resident: tuple[str, ...],
    **figures: Any,
) -> Program:
    """A program of the decoder's table as the plan sees it; `figures` are further fields of Program."""
    return Program(
        name=name,
        shape=shape,
        trace=program.trace,
        num_devices=num_devices,
        other_resident=other_resident,
        **figures,
    )
