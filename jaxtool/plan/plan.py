"""Plans a run: every program compiled for the slice, one after the other."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

from jaxtool.plan.advice import advise
from jaxtool.plan.chips import GIB, parse_slice
from jaxtool.plan.compiled import ProgramPlan, compile_program
from jaxtool.plan.rl_programs import run_programs
from jaxtool.plan.sft_programs import cold_start_programs
from jaxtool.plan.step import (
    Assumptions,
    StepPlan,
    packed_row,
    rows_in_pages,
    rows_of_update,
    runs_per_cold_start_step,
    runs_per_step,
    trajectories_of,
)
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig


def plan_run(
    config: RlConfig | SftRunConfig,
    topology: str,
    assumed: Assumptions,
    *,
    report: Callable[[ProgramPlan], None] = lambda program: None,
    kept: Path | None = None,
) -> StepPlan:
    """Compiles every program of one step for a slice; nothing is run and no weight is read.

    Args:
      config: of an RL run or of a cold start.
      topology: "v5p:4x4x8" or "v5p-128", see `parse_slice`.
      report: called with each program as it is compiled.
      kept: what the compiler says is kept in this directory and read from it: see `facts_of`.

    Raises:
      RuntimeError: libtpu is missing.
      ValueError: unknown topology, a configuration that a run on this slice would refuse at its start
        (see `run_programs`).
    """
    tpu = parse_slice(topology)
    config.mesh.sizes(tpu.num_devices)  # refuses before libtpu is loaded
    if isinstance(config, SftRunConfig):
        built = cold_start_programs(config, tpu)
        runs = runs_per_cold_start_step(config, assumed)
    else:
        built = run_programs(
            config,
            tpu,
            live_tokens=assumed.live_tokens(config),
            rows_of=functools.partial(rows_in_pages, config, assumed, tpu.num_hosts),
        )
        assert built.engine is not None
        config = dataclasses.replace(config, engine=built.engine)
        runs = runs_per_step(config, assumed, tpu.num_hosts, paged=built.paged)
    plans = []
    for program in built.programs:
        plans.append(
            compile_program(
                program,
                built.resident,
                tpu,
                product_efficiency=assumed.product_efficiency,
                row=packed_row(config, assumed),
                kept=kept,
            )
        )
        report(plans[-1])
    limit = tpu.chip.hbm_gib * GIB
    rows = rows_of_update(config, assumed)
    return StepPlan(
        step="RL step" if isinstance(config, RlConfig) else "cold-start step",
        tpu=tpu,
        programs=tuple(plans),
        resident=built.resident,
        runs=runs,
        trajectories=trajectories_of(config),
        paged=built.paged,
        page_bytes=built.page_bytes,
        assumptions=assumed,
        resting=built.resting,
        advice=advise(config, plans, built.resident, limit, built.host, rows),
    )
