"""The small runs that drills are made with, in a child process; see `helpers.drills`."""

import asyncio
import contextlib
import dataclasses
import errno
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from helpers.drills import Phases, Spec, hang
from helpers.several_hosts import Demonstrations
from helpers.small_runs import (
    CountingTool,
    cold_start,
    cold_start_of,
    one_device_mesh,
    rl_config,
    train,
    two_tools,
)

from jaxtool.model.lora import LoraConfig
from jaxtool.model.sources import RandomInit
from jaxtool.parallel.axis_rules import single_device
from jaxtool.rundir import rollout_journal, stopping
from jaxtool.rundir.answer_files import read_answers
from jaxtool.rundir.checkpoints import Checkpoints, SavedPolicy
from jaxtool.rundir.metric_table import without_clock
from jaxtool.rundir.timeline import Timeline
from jaxtool.study import evaluating, evaluation_plan
from jaxtool.study import sweep as sweeps
from jaxtool.study.evaluation_plan import Asked, plan_evaluation
from jaxtool.study.sweep_files import load_sweep
from jaxtool.train import rl_loop

WHOLE, WRITING = "whole", "writing"  # phases beside those of the loop
SWEEP = """
run = ["gin_configs/runs/quickstart_pretrain.gin"]
seeds = [3, 4]
steps = 4
metrics = ["sft/loss_nats"]

[grid]
ModelConfig.num_layers = [1]
ModelConfig.d_model = [32]
DemonstrationStream.count = [8]
SftConfig.micro_batch_rows = [4]
SftRunConfig.log_every = [1]
SftRunConfig.checkpoint_every = [2]
"""


class DrillTool(CountingTool):
    """Says how long the program is, after a moment; the fault of a child is done in its calls."""

    def __init__(self, spec: Spec):
        super().__init__()
        self._spec, self._begun = spec, 0

    async def execute(self, code):
        fault, call = self._spec.fault, self._begun
        self._begun += 1
        if call == fault.sigterm_at_call:
            self._spec.note(told=True)
            os.kill(os.getpid(), signal.SIGTERM)
        if call == fault.stop_file_at_call:
            self._spec.note(told=True)
            (self._spec.workdir / stopping.STOP).touch()
        if call == fault.interrupts_at_call:
            self._spec.note(told=True)
            os.kill(os.getpid(), signal.SIGINT)
        if call in (fault.sigterm_at_call, fault.stop_file_at_call, fault.interrupts_at_call):
            await hang()
        await asyncio.sleep(0.003)
        return await super().execute(code)


def run(spec: Spec) -> None:
    jax.config.update("jax_num_cpu_devices", 1)
    jax.config.update("jax_compilation_cache_dir", str(spec.folder / "xla"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    phases = Phases(spec)
    with contextlib.ExitStack() as stack:
        _watch(stack, phases)
        _break(spec)
        began = phases.begin(WHOLE)
        KINDS[spec.kind](spec)
        phases.end(WHOLE, began)


def _watch(stack: contextlib.ExitStack, phases: Phases) -> None:
    """Has the loop's phases, and the writing of checkpoints, told to `phases`."""
    phase_of, save_of = Timeline.phase, Checkpoints.save

    @contextlib.contextmanager
    def phase(self, name):
        began = phases.begin(name)
        with phase_of(self, name):
            yield
        phases.end(name, began)

    def save(self, step, state, meta):
        began = phases.begin(WRITING)
        save_of(self, step, state, meta)
        if phases._spec.fault.kill is None:
            self._manager.wait_until_finished()
        phases.end(WRITING, began)

    Timeline.phase, Checkpoints.save = phase, save


def _break(spec: Spec) -> None:
    """The fault's disk, update and time."""
    fault = spec.fault
    stopping.StopNotice.__init__.__kwdefaults__["grace_s"] = fault.grace_s
    if fault.row_write_s or fault.no_space_after is not None:
        rollout_journal._create = partial(_bad_file, spec)
    if fault.checkpoint_write_s:
        save_of = Checkpoints.save

        def save(self, step, state, meta):
            save_of(self, step, state, meta)
            finish = self._manager.wait_until_finished

            def wait():
                time.sleep(fault.checkpoint_write_s)
                finish()

            self._manager.wait_until_finished = wait

        Checkpoints.save = save
    if fault.hangs_in_update is not None:
        learn_of = rl_loop._learn

        def learn(run, rollouts, batch, step):
            if step == fault.hangs_in_update:
                spec.note(told=True)
                os.kill(os.getpid(), signal.SIGTERM)
                _block_in_c()
            return learn_of(run, rollouts, batch, step)

        rl_loop._learn = learn


def _block_in_c() -> None:
    """As a long compiled program does: the main thread runs no Python, so no handler of a signal either."""
    import ctypes

    ctypes.CDLL(None).usleep.argtypes = [ctypes.c_uint]
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:  # a signal ends one sleep, not the program
        ctypes.CDLL(None).usleep(900_000)


class _bad_file:
    """A file on a slow disk, or on one that gets full."""

    def __init__(self, spec: Spec, path: Path):
        self._fault, self._rows = spec.fault, 0
        self._file = open(path, "xb")  # noqa: SIM115 (closed by its owner)

    def write(self, data):
        time.sleep(self._fault.row_write_s)
        if self._rows == self._fault.no_space_after:
            self._file.write(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")
        self._rows += 1
        return self._file.write(data)

    def __getattr__(self, name):
        return getattr(self._file, name)


def _rl(spec: Spec) -> None:
    config = two_tools(spec.folder)
    schedule = dataclasses.replace(
        config.schedule, **{"eval_every": 2, "eval_problems": 3} | spec.fields
    )
    config = dataclasses.replace(config, schedule=schedule)
    tool = DrillTool(spec)
    train(config, workdir=spec.workdir, seed=spec.seed, tool=tool)
    spec.note(calls=tool.calls)


def _pretrain(spec: Spec) -> None:
    run = rl_config(spec.folder)
    config = cold_start_of(run, [5], Demonstrations(), log_every=1, steps=9, checkpoint_every=4)
    cold_start(config, workdir=spec.workdir, seed=spec.seed)


def _cold_start(spec: Spec) -> None:
    """An adapter, which starts from a policy that a run has saved."""
    run = rl_config(spec.folder)
    before = spec.folder / "before"
    if not (before / "policy").exists():
        first = cold_start_of(run, [5], Demonstrations(), steps=1)
        cold_start(first, workdir=before, seed=0)
    config = cold_start_of(
        run,
        [5],
        Demonstrations(),
        log_every=1,
        steps=9,
        checkpoint_every=4,
        lora=LoraConfig(rank=2, alpha=8.0),
    )
    cold_start(config, workdir=spec.workdir, seed=spec.seed, init_from=before / "policy")


def _evaluation(spec: Spec) -> None:
    evaluation_plan._CHUNK_ANSWERS = 16
    evaluation_plan.weights_named = lambda name, like: RandomInit(config=like.config)
    plan = plan_evaluation(
        rl_config(spec.folder),
        {name: f"runs/{name}" for name in ("a", "b")},
        Asked(data="", problems=5, samples=8),
    )
    evaluating.run_evaluation(plan, spec.workdir, tool=DrillTool(spec), mesh=one_device_mesh())


def _sweep(spec: Spec) -> None:
    """Two jobs in one process of a pool, whose own process is the one that is killed."""
    path = spec.folder / "grid.toml"
    if not path.exists():
        path.write_text(SWEEP)
    sweep = load_sweep(path)
    jobs = sweeps.jobs_of(sweep, spec.workdir)
    sweeps.check(sweep, jobs, spec.workdir)
    cores = tuple(sorted(os.sched_getaffinity(0)))
    sweeps.run(sweep, jobs, spec.workdir, sweeps.Options(places=(cores,)))
    sys.stdout.flush()


_NOT_COMPARED = ("wall_ms", "spans", "variant")  # times, and the name of the directory

KINDS = {
    "rl": _rl,
    "pretrain": _pretrain,
    "cold_start": _cold_start,
    "evaluation": _evaluation,
    "sweep": _sweep,
}


def left_by(workdir: Path) -> dict[str, object]:
    """What a run, an evaluation or a sweep leaves in its directory, without what depends on the clock."""
    if (workdir / "answers").is_dir():
        return {"answers": [dataclasses.replace(one, spans=()) for one in _answers(workdir)]}
    found: dict[str, Any] = {}
    for policy in sorted(workdir.glob("**/policy/model_config.json")):
        run = policy.parent.parent
        name = str(run.relative_to(workdir))
        _, params = SavedPolicy(path=str(run / "policy")).load(single_device(), 0)
        found[f"{name}/policy"] = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(params)]
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        for row in map(without_clock, rows):
            for metric, value in row.items():
                found.setdefault(f"{name}/metrics/{metric}", []).append((row["step"], value))
        found[f"{name}/trajectories"] = _trajectories(run / "trajectories.jsonl")
    return found


def _answers(workdir: Path):
    for record in read_answers(workdir):
        calls = tuple(
            dataclasses.replace(one, wall_ms=0, queue_ms=0, cpu_ms=0) for one in record.calls
        )
        yield dataclasses.replace(record, calls=calls)


def _trajectories(path: Path) -> list[str]:
    def timeless(value):
        if isinstance(value, dict):
            return {k: timeless(v) for k, v in value.items() if k not in _NOT_COMPARED}
        return [timeless(one) for one in value] if isinstance(value, list) else value

    if not path.exists():
        return []
    lines = path.read_text().splitlines()
    return [json.dumps(timeless(json.loads(line)), sort_keys=True) for line in lines]
