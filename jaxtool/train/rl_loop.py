"""The RL run: rollouts with tool calls, rewards, one policy update, over and over.

Synchronous and strictly on-policy: the engine holds the parameters of the step. Killed at any moment
and started again, the run goes on from its last checkpoint to the same numbers. With
`Schedule.max_staleness` rows go on while the learner updates: see `async_rollouts` for what then holds.
"""

import dataclasses
import sys
import time
from asyncio import Runner
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np

from jaxtool.core import rng
from jaxtool.core.types import Problem, Score, Trajectory
from jaxtool.data.batches import ProblemBatches
from jaxtool.decode.engine import EngineCounts
from jaxtool.learn.grpo import LearnerSetup, needs_reference, with_off_policy
from jaxtool.learn.learner import Learner, make_learner
from jaxtool.learn.members import Members
from jaxtool.learn.policy_view import split_policy
from jaxtool.learn.state import Metrics, check_micro_batch_rows, check_row_tokens
from jaxtool.model.attention_backends import cached_backend, training_backend
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import source_dtype
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rollout.batching import to_batch
from jaxtool.rollout.statistics import step_metrics
from jaxtool.rundir.checkpoints import Checkpoints, SavedPolicy, is_policy
from jaxtool.rundir.metrics import MetricsWriter
from jaxtool.rundir.progress import ProgressDisplay
from jaxtool.rundir.trajectory_log import TrajectoryLog
from jaxtool.rundir.workdir import claim_workdir, records_dir
from jaxtool.tools.base import Tool
from jaxtool.tools.health import ToolHealth
from jaxtool.train.evaluation import evaluate, judged
from jaxtool.train.lora_run import check_frozen, frozen_record, save_result
from jaxtool.train.overlapped_rollouts import (
    AsyncRollouts,
    check_one_host,
    overlapped,
)
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_batch import RolloutBatch, gather
from jaxtool.train.rollout_worker import RolloutWorker, open_worker

_Result = TypeVar("_Result")


@dataclasses.dataclass(kw_only=True)
class _Run:
    """What changes from step to step."""

    state: Any  # the learner's
    frozen: dict[str, Any]  # with LoRA names the parameters that stay as they are
    batches: ProblemBatches
    store: CallStore
    health: ToolHealth  # starts anew with every process
    rollouts: AsyncRollouts | None = None  # with Schedule.max_staleness

    def meta(self, counts: EngineCounts) -> dict[str, Any]:
        ahead = self.rollouts.ahead if self.rollouts else []
        return {
            "batches": self.batches.get_state(),
            "ahead": [[problem.problem_id for problem in problems] for problems in ahead],
            "store": self.store.state_dict(),
            "counts": dataclasses.asdict(counts),
        } | self.frozen


def train(
    config: RlConfig,
    *,
    workdir: Path,
    seed: int,
    init_from: Path | None = None,
    sandbox_addresses: tuple[str, ...] = (),
    tool: Tool | None = None,
) -> Path:
    """Runs or resumes an RL run; returns the directory of the saved policy.

    Args:
      init_from: policy directory of an earlier run, in place of `config.policy`.
      sandbox_addresses: running servers, in place of `config.sandbox.addresses`.
      tool: answers calls in place of any sandbox; the caller closes it.
    """
    policy_dir = workdir / "policy"
    claim_workdir(workdir, dataclasses.replace(config, mesh=MeshConfig()), seed, init_from)
    if hosts.agree(lambda: is_policy(policy_dir)):
        return policy_dir
    source = config.policy if init_from is None else SavedPolicy(path=str(init_from))
    schedule = config.schedule
    check_one_host(schedule.max_staleness, jax.process_count())
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        worker, params = open_worker(
            stack, runner, config, source, seed, sandbox_addresses, tool, source_dtype(config.lora)
        )
        check_micro_batch_rows(config.grpo.micro_batch_rows, worker.sharding)
        check_row_tokens(config.pack.row_tokens, worker.sharding)
        trained, view = split_policy(
            params,
            worker.model,
            config.lora,
            rng.key(seed, "lora"),
            worker.sharding,
            keeps_first=needs_reference(config.grpo),
        )
        setup = learner_setup(config, worker.model, worker.sharding)
        learner = make_learner(setup, config.critic, view)
        for line in numerics_lines(config, worker.model, learner.setup):
            print(line, flush=True)
        pool = config.task.problems("train", schedule.pool, seed)
        run = _Run(
            state=learner.start(trained),
            frozen=frozen_record(view.frozen),
            batches=ProblemBatches(pool, batch_size=schedule.problems_per_step, seed=seed),
            store=CallStore(),
            health=ToolHealth(config.sandbox.health),
        )
        # `state` holds a copy: another one for the whole run would cost as much as a moment.
        del params, trained
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        start = checkpoints.latest_step or 0
        ahead: list[list[Problem]] = []
        if start:
            run.state, meta = checkpoints.restore(run.state)
            check_frozen(view.frozen, meta)
            run.batches.set_state(meta["batches"])
            run.store = CallStore.from_state_dict(meta["store"])
            if hosts.is_first():  # they are those of all hosts
                worker.engine.counts = EngineCounts(**meta["counts"])
            by_id = {problem.problem_id: problem for problem in pool}
            ahead = [[by_id[name] for name in names] for names in meta.get("ahead", [])]
        resume = start - 1 if start else None
        records = records_dir(stack, workdir)
        writer = stack.enter_context(MetricsWriter(records, resume))
        log = stack.enter_context(TrajectoryLog(records, resume))
        progress = stack.enter_context(ProgressDisplay(workdir.name, schedule.steps, initial=start))
        worker.engine.load(learner.policy(run.state))
        worker.compile_ahead(config.sampling)
        run.rollouts = overlapped(stack, config, worker, run.batches, seed, ahead)
        for step in range(start, schedule.steps):
            if run.rollouts is None:
                worker.engine.load(learner.policy(run.state))
            else:
                run.rollouts.begin_step(step, learner.policy(run.state))
            metrics = _step(config, worker, run, learner, log, workdir.name, seed, step)
            if schedule.eval_every and (step + 1) % schedule.eval_every == 0:
                metrics |= _validate(config, worker, run, learner.policy(run.state), seed, step)
            writer.write(step, metrics)
            progress.update(
                step + 1,
                {
                    "reward": metrics.get("reward/mean", float("nan")),
                    "accuracy": metrics.get("reward/accuracy_fraction", float("nan")),
                    "calls": metrics.get("tools/calls_per_answer", float("nan")),
                },
            )
            if (step + 1) % schedule.checkpoint_every == 0 and step + 1 < schedule.steps:
                checkpoints.save(step + 1, run.state, run.meta(worker.total_counts()))
        save_result(
            workdir, learner.trained(run.state), view, worker.model, worker.sharding, source
        )
    return policy_dir


def learner_setup(config: RlConfig, model: ModelConfig, sharding: Sharding) -> LearnerSetup:
    """What the learner's programs are compiled for."""
    return LearnerSetup(
        model=model,
        grpo=with_off_policy(config.grpo, _sampler_differs(config, model)),
        optimizer=config.optimizer,
        sharding=sharding,
        temperature=config.sampling.temperature,
        truncation=config.sampling.truncation,
        num_trajectories=config.schedule.problems_per_step * config.schedule.samples,
    )


def _sampler_differs(config: RlConfig, model: ModelConfig) -> str | None:
    """Why log-probs of sampler and learner differ by more than rounding; None: they do not."""
    behind = config.schedule.max_staleness
    reasons = [
        config.engine.numerics.differs_from(model),
        f"is up to {behind} updates behind" if behind else None,
    ]
    return ", ".join(reason for reason in reasons if reason) or None


def numerics_lines(config: RlConfig, model: ModelConfig, setup: LearnerSetup) -> list[str]:
    """What attends, and what is done about a decoder that computes otherwise than the learner."""
    numerics, positions = config.engine.numerics, config.engine.max_tokens
    learner = training_backend(model, config.pack.row_tokens, setup.sharding)
    decoder = cached_backend(numerics.model(model), positions, setup.sharding)
    lines = [f"attention: {learner} in the learner, {decoder} over {positions} cache positions"]
    if config.lora is not None:
        lines.append(f"trained: {config.lora}")
    difference = _sampler_differs(config, model)
    if difference is not None:
        names = [type(correction).__name__ for correction in setup.grpo.off_policy or ()]
        remedy = " and ".join(names) or "no correction (GrpoConfig.off_policy or anchor says so)"
        lines.append(
            f"the decoder {difference}: {remedy} in the loss; see mismatch/ in the metrics"
        )
    return lines


def _step(
    config: RlConfig,
    worker: RolloutWorker,
    run: _Run,
    learner: Learner[Any],
    log: TrajectoryLog,
    variant: str,
    seed: int,
    step: int,
) -> dict[str, float]:
    """Collect, score, learn. Changes `run`; returns the step's metrics."""
    started = time.monotonic()
    rollout_batch = gather(config, worker, run.batches, run.store, seed, step, run.rollouts)
    if config.unloads_decoder:
        worker.engine.unload()
    trajectories, scores = rollout_batch.trajectories, rollout_batch.scores
    metrics = step_metrics(trajectories, scores) | worker.metrics() | rollout_batch.metrics()
    if run.rollouts is not None:
        metrics |= run.rollouts.metrics(trajectories, step)
    if worker.collector.renderer.tool is not None:
        _check_tool_health(run.health, trajectories, scores, step)
    collected = time.monotonic()
    aims, learned = _learn(config, run, learner, rollout_batch)
    if step % config.schedule.log_trajectories_every == 0:
        kept = config.schedule.log_trajectories
        log.write(worker.views(variant, step, trajectories, scores, aims, kept))
    metrics |= {name: float(value) for name, value in jax.device_get(learned).items()}
    sampled = sum(trajectory.num_policy_tokens for trajectory in trajectories)
    metrics |= {
        "tokens/sampled_per_s": sampled / (collected - started),
        "timing/collect_s": collected - started,
        "timing/update_s": time.monotonic() - collected,
        "timing/step_s": time.monotonic() - started,
    }
    return metrics


def _learn(
    config: RlConfig, run: _Run, learner: Learner[Any], rollout_batch: RolloutBatch
) -> tuple[np.ndarray, Metrics]:
    """All updates of a step. Changes `run.state`.

    Returns:
      Each trajectory's advantage (its reward, where a critic makes advantages), 0 outside the chosen
      groups; and the metrics of the updates.
    """
    chosen = rollout_batch.rows
    members = Members(
        scores=[rollout_batch.scores[i] for i in chosen],
        group_ids=np.arange(len(chosen), dtype=np.int32) // config.schedule.samples,
        is_dropped=np.array([rollout_batch.dropped[i] for i in chosen], bool),
    )
    packed = [rollout_batch.trajectories[chosen[i]] for i in learner.packed(members)]
    batch = to_batch(packed, config.pack) if packed else None

    def learn() -> tuple[np.ndarray, Metrics]:
        placed, aims = learner.targets(run.state, batch, members)
        if placed is None:
            return aims, {}
        run.state, metrics = learner.update(run.state, placed)
        return aims, metrics

    aims = np.zeros(len(rollout_batch.trajectories), np.float32)
    aims[chosen], metrics = _computed(run, learn)
    return aims, metrics


def _computed(run: _Run, call: Callable[[], _Result]) -> _Result:
    """A call that uses the learner's devices, in the thread that may."""
    return call() if run.rollouts is None else run.rollouts.dispatch(call)


def _check_tool_health(
    health: ToolHealth, trajectories: list[Trajectory], scores: list[Score | None], step: int
) -> None:
    """Raises when the sandbox loses too many trajectories; says when nobody calls it any more."""
    warning = health.observe(
        lost=sum(score is None for score in scores),
        trajectories=len(trajectories),
        tool_calls=sum(trajectory.num_tool_calls for trajectory in trajectories),
    )
    if warning:
        print(f"warning: step {step}: {warning}", file=sys.stderr, flush=True)


def _validate(
    config: RlConfig, worker: RolloutWorker, run: _Run, policy: Params, seed: int, step: int
) -> dict[str, float]:
    """Sampled accuracy and calls on validation problems, with the updated policy."""
    problems = config.task.problems("validation", config.schedule.eval_problems, seed)
    if run.rollouts is None:
        worker.engine.load(policy)
        evaluation = evaluate(
            worker.collector,
            worker.runner,
            worker.checker,
            problems,
            samples=1,
            sampling=config.sampling,
            seed=seed,
            stream=("validation",),
            version=step + 1,
        )
    else:
        answers = run.rollouts.validate(problems, step + 1, policy)
        evaluation = judged(worker.checker, answers)
    metrics = {
        "validation/accuracy_fraction": evaluation.overall["accuracy"],
        "validation/calls_per_answer": evaluation.overall["tool_calls"],
    }
    for level, part in evaluation.levels.items():
        metrics[f"validation/accuracy_fraction/{level}"] = part["accuracy"]
        metrics[f"validation/calls_per_answer/{level}"] = part["tool_calls"]
    return metrics
