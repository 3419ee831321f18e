"""The programs of a cold start on a slice, from shapes alone: a gradient block and the update."""

import numpy as np

from jaxtool.learn import programs as learner
from jaxtool.learn.compile_options import options_for
from jaxtool.learn.sft import SftSetup, check_rows
from jaxtool.model.param_axes import check_divides, param_axes, param_shapes
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import make_mesh
from jaxtool.plan.chips import Slice, slice_devices
from jaxtool.plan.learner_programs import (
    block_shapes,
    logit_chunks,
    tower_of,
    trained_shapes,
    update_program,
)
from jaxtool.plan.program import Program, RunPrograms, placed, shard_bytes
from jaxtool.train.sft_loop import SftRunConfig


def cold_start_programs(config: SftRunConfig, tpu: Slice) -> RunPrograms:
    """Every program of one step, at its largest shape; a short last block is smaller.

    Raises:
      ValueError: what the run would raise at its start.
    """
    model = config.policy.model_config()
    sharding = Sharding(make_mesh(config.mesh, slice_devices(tpu)), config.axes)
    check_divides(model, sharding)
    rows, length = config.sft.micro_batch_rows, config.pack.row_tokens
    check_rows(config.sft, length, sharding)
    shapes = param_shapes(model)
    params = placed(shapes, sharding.tree(param_axes(shapes)))
    trained, view = trained_shapes(params, model, config.lora, sharding)
    policy = tower_of(trained, config.optimizer, sharding)
    setup = SftSetup(model=model, sft=config.sft, optimizer=config.optimizer, sharding=sharding)
    table = learner.cold_start_programs(setup)
    programs = (
        Program(
            name=table.gradient_block.name,
            shape=f"{rows} rows x {length} tokens",
            trace=lambda: table.gradient_block.trace(
                total=policy.gradients,
                params=trained,
                view=view,
                inputs=block_shapes(rows, config.pack, sharding),
                count=np.float32(1),
            ),
            num_devices=sharding.mesh.size,
            options=options_for(sharding),
            other_resident=("optimizer state",),
            while_trips=logit_chunks(length, config.sft.lm_head_chunk, sharding),
        ),
        update_program(
            table.update,
            policy,
            config.optimizer,
            sharding,
            other_resident=("parameters",) if view.frozen else (),
        ),
    )
    resident = {
        "parameters": shard_bytes(view.full(trained)),
        "optimizer state": policy.optimizer_bytes,
        "gradients": shard_bytes(policy.gradients),
    }
    return RunPrograms(programs=programs, resident=resident, engine=None, host={})
