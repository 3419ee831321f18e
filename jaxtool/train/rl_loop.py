"""The RL run: rollouts with tool calls, rewards, updates of the policy, over and over.

A step samples a batch, scores it and makes `GrpoConfig.updates_per_batch` updates from it. With
`Schedule.max_staleness = 0` rollouts and updates take turns: all tokens of a batch are sampled by the
parameters that the step begins with, so the first update of a batch is on-policy and the later ones
are not. Then a run that is killed at any moment and started again resumes from its last checkpoint, reads back the
answers that were finished since, and ends in the same numbers. With `max_staleness` rows decode while the learner updates: see
`overlapped_rollouts` for what then holds.
"""

import sys
import time
from asyncio import Runner
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxtool.data.tokenizer import Tokenizer
from jaxtool.learn.members import Members
from jaxtool.learn.state import Metrics
from jaxtool.model.lora import source_dtype
from jaxtool.model.sources import PolicySource
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_memory import check_has_host_memory
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.batching import to_batch
from jaxtool.rollout.statistics import step_metrics
from jaxtool.rundir.bottleneck import bottleneck_text, share_metrics
from jaxtool.rundir.checkpoints import Checkpoints
from jaxtool.rundir.live_status import CHECKPOINT, COMPILE, DATA, JUDGE, UPDATE, VALIDATION, WEIGHTS
from jaxtool.rundir.progress import ProgressDisplay, progress_of
from jaxtool.rundir.run_log import RunLog, open_log
from jaxtool.rundir.run_start import Identity, Launch, open_start
from jaxtool.rundir.stopping import StopNotice
from jaxtool.rundir.trajectory_log import logged_views
from jaxtool.rundir.workdir import holds_workdir
from jaxtool.tools.base import CodeRunner
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import evaluation_of, lost_text
from jaxtool.train.lora_run import save_kept, save_result
from jaxtool.train.overlapped_rollouts import open_rollouts
from jaxtool.train.problem_sets import ProblemSets, draw_problems
from jaxtool.train.resume_rules import MAY_CHANGE, optimizers_of, say_changes
from jaxtool.train.rl_config import RlConfig, samplings_of
from jaxtool.train.rollout_batch import RolloutBatch, gather
from jaxtool.train.rollout_worker import check_vocabulary, load_text, open_worker
from jaxtool.train.rollouts import OpenRollouts, Rollouts
from jaxtool.train.run_state import Run, open_run, restore
from jaxtool.train.run_stops import CheckpointTimes, open_kept
from jaxtool.train.skipped_updates import check_sampled
from jaxtool.train.tool_checks import check_tools
from jaxtool.train.watching import new_activity, open_watch
from jaxtool.train.weights import weights_named


@holds_workdir
def train(
    config: RlConfig,
    *,
    workdir: Path,
    seed: int,
    init_from: Path | None = None,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
    tool: CodeRunner | None = None,
    mesh: jax.sharding.Mesh | None = None,
    open_rollouts: OpenRollouts = open_rollouts,
    launch: Launch = Launch(),  # noqa: B008 (frozen)
) -> Path:
    """Runs or resumes an RL run; returns the directory of the saved policy.

    Args:
      init_from: a name of weights (`weights_named`), in place of `config.policy`.
      sandbox_addresses: running servers, in place of `config.sandbox.addresses`.
      search_addresses: running search servers, in place of what `config.tools` name.
      tool: runs programs in place of any sandbox; the caller closes it.
      mesh: of the learner, in place of the one that `config.mesh` makes of all devices.
      open_rollouts: makes the rollouts, in place of what `Schedule.max_staleness` asks for.
      launch: what the command knows, for the record of the run.

    Raises:
      ValueError: another run is in the directory; what differs is named.
    """
    policy_dir, schedule = workdir / "policy", config.schedule
    identity = Identity(config=config, seed=seed, init_from=init_from, steps=schedule.steps)
    with ExitStack() as stack:
        stop = stack.enter_context(StopNotice(workdir))
        begun = open_start(workdir, identity, launch=launch, may_change=MAY_CHANGE)
        this_start = stack.enter_context(begun)
        if this_start.is_finished:
            return policy_dir
        source = config.policy if init_from is None else weights_named(init_from, config.policy)
        sharding, text, problems = _checked(config, source, seed, mesh)
        dtype = source_dtype(config.lora)
        runner = stack.enter_context(Runner())
        worker, params = open_worker(
            *(stack, runner, config, source, sharding, seed, sandbox_addresses, tool, dtype, text),
            search_addresses=search_addresses,
            activity=new_activity(launch),
            parameters_leave=config.parameters_leave,
        )
        stop.check()
        run = open_run(config, workdir, seed, worker, params, sharding, problems)
        del params  # the state holds a copy; a second one would stay for the whole run
        checkpoints = stack.enter_context(Checkpoints(workdir / "checkpoints"))
        start, queued = restore(run, checkpoints)
        resume = start - 1 if start else None
        this_start.begin(start)
        updates = config.grpo.updates_per_batch
        say_changes(
            this_start,
            optimizers_of(config),
            update=start * updates,
            last_update=schedule.steps * updates,
        )
        log = stack.enter_context(open_log(stack, workdir, resume, this_start, launch))
        progress = stack.enter_context(ProgressDisplay(workdir.name, schedule.steps, initial=start))
        watch = stack.enter_context(open_watch(run, workdir, start, progress.note))
        keeps = schedule.keep_answers
        kept = open_kept(stack, workdir, worker.collector, stop, this_start, start, keeps=keeps)
        due = CheckpointTimes(
            schedule.checkpoint_every, schedule.checkpoint_minutes, schedule.steps
        )
        _compile_decoder(run)

        def keep(step: int, may_be_best: bool) -> None:
            trained, view = run.learner.trained(run.state), run.learner.view
            save_kept(
                *(workdir, step, schedule.steps, config.keep_policies, trained, view),
                *(worker.model, sharding),
                may_be_best=may_be_best,
            )

        keep(start, may_be_best=True)
        rollouts = open_rollouts(stack, config, worker, run.batches, seed, queued)
        for step in range(start, schedule.steps):
            with watch.step(step):
                stop.check_step()
                metrics = _step(run, rollouts, log, workdir, step)
                metrics |= watch.read(metrics) | kept.metrics()
                is_validated = schedule.validates_after(step + 1)
                if is_validated:
                    with run.phase(VALIDATION):
                        metrics |= _validate(run, rollouts, step)
                log.write(step, metrics | worker.call_metrics())
                run.skipped.check()
                progress.update(step + 1, _shown(metrics))
                is_stopped = stop.is_agreed()
                with run.phase(CHECKPOINT):
                    # The last step has one too, from which a longer run goes on.
                    if due.is_due(step + 1) or is_stopped:
                        log.sync()
                        meta = run.meta(rollouts.queued)
                        rollouts.dispatch(partial(checkpoints.save, step + 1, run.state, meta))
                    kept.end_step()
                    rollouts.dispatch(partial(keep, step + 1, may_be_best=is_validated))
        trained = run.learner.trained(run.state)
        save_result(workdir, trained, run.learner.view, worker.model, sharding, source)
        kept.finish(schedule.steps)
        this_start.finish()
    return policy_dir


def _compile_decoder(run: Run) -> None:
    """Every program that the rollouts can need, with the parameters as they are."""
    run.begin_decoding()
    run.worker.engine.load(run.policy)
    with run.phase(COMPILE), progress_of("compile decoder") as report:
        run.worker.compile(report, *samplings_of(run.config))
    if run.config.offloads_learner:
        run.end_decoding()


def _checked(
    config: RlConfig, source: PolicySource, seed: int, mesh: jax.sharding.Mesh | None
) -> tuple[Sharding, tuple[Renderer, Tokenizer], ProblemSets]:
    """What a run can be refused for before its weights are read: devices, text, problems."""
    model = source.model_config()
    sharding, _ = make_shardings(config, model, mesh)
    if config.offloads_learner:
        check_has_host_memory(sharding.mesh, "RlConfig.offloads_learner=True")
    if config.unloads_decoder and config.schedule.max_staleness:
        check_has_host_memory(
            sharding.mesh, "RlConfig.unloads_decoder beside Schedule.max_staleness"
        )
    text = load_text(config)
    check_vocabulary(text[1], model)
    problems = draw_problems(config, seed, *text)
    for name, line in (("data", problems.data), ("judge", problems.judging)):
        if line:
            print(f"{name}: {line}", flush=True)
    return sharding, text, problems


def _shown(metrics: dict[str, float]) -> dict[str, float | str]:
    """The figures of the progress line."""
    names = {
        "reward": "reward/mean",
        "accuracy": "reward/accuracy_fraction",
        "calls": "tools/calls_per_answer",
    }
    figures = {short: metrics.get(name, float("nan")) for short, name in names.items()}
    return figures | {"bottleneck": bottleneck_text(metrics)}


def _step(run: Run, rollouts: Rollouts, log: RunLog, workdir: Path, step: int) -> dict[str, float]:
    """Collect, score, learn. Changes `run`; returns the step's metrics."""
    begun = time.monotonic()
    config, worker = run.config, run.worker
    with run.phase(WEIGHTS):
        run.begin_decoding()
        rollouts.begin_step(step, run.policy)
    started = time.monotonic()
    # 1) Roll out and score, until the batch is full; a broken tool ends the run here.
    batch = gather(config, rollouts, run.store, run.seed, step)
    worker.collector.stop.check()  # all of it is kept, and an update may take minutes
    batch, checked = check_tools(run.health, worker, rollouts, batch, step)
    check_sampled(batch.groups, f"step {step}", workdir)
    run.end_decoding(rollouts.unload)
    metrics = step_metrics(batch.groups, worker.collector.tools.names, config.call_cost)
    metrics |= worker.metrics() | batch.metrics()
    metrics |= rollouts.metrics(batch.groups, step) | checked
    metrics |= {
        "timing/data_s": run.timeline.seconds(DATA),
        "timing/judge_s": run.timeline.seconds(JUDGE),
    }
    collected = time.monotonic()
    # 2) Learn from the chosen groups, and keep some samples for the report.
    with run.phase(UPDATE):
        advantages, learned = _learn(run, rollouts, batch, step)
    if _is_logged(config, step):
        views = logged_views(
            batch.samples,
            config.schedule.log_trajectories,
            variant=workdir.name,
            step=step,
            token_text=worker.token_text,
            control_tokens=worker.tokenizer.control_tokens,
            advantages=advantages,
        )
        log.write_views(step, views)
    with run.phase(UPDATE):
        run.skipped.settle()
        learned = jax.device_get(learned)
    metrics |= {name: float(value) for name, value in learned.items()}
    sampled = sum(trajectory.num_policy_tokens for trajectory in batch.trajectories)
    metrics |= {
        "tokens/sampled_per_s": sampled / (collected - started),
        "timing/collect_s": collected - started,
        "timing/update_s": time.monotonic() - collected,
        "timing/step_s": time.monotonic() - begun,
    }
    return metrics | share_metrics(metrics)


def _is_logged(config: RlConfig, step: int) -> bool:
    """Whether trajectories of the step are kept for the report."""
    every = config.schedule.log_trajectories_every
    return bool(every) and step % every == 0


def _learn(
    run: Run, rollouts: Rollouts, batch: RolloutBatch, step: int
) -> tuple[list[float | np.ndarray | None], Metrics]:
    """All updates of a step. Changes `run.state` and `run.skipped`.

    Returns:
      Each sample's advantage: one for all its tokens, with a critic [T] float32, None outside the chosen groups and
      with a critic in steps that are not logged; and the metrics of the updates.
    """
    shown: list[float | np.ndarray | None] = [None] * len(batch.samples)
    # 1) The chosen samples with their scores; those that carry tokens are packed, once.
    samples, learner = [batch.samples[i] for i in batch.chosen], run.learner
    if not samples:  # nobody is asked for the advantages of nothing
        return shown, {}
    members = Members(
        scores=[sample.score for sample in samples],
        group_ids=batch.group_ids,
        is_dropped=np.array([sample.is_dropped for sample in samples], bool),
    )
    in_batch = learner.packed(members)
    trajectories = [samples[i].trajectory for i in in_batch]
    packed = to_batch(trajectories, run.config.pack) if trajectories else None

    looks_at_tokens = run.config.critic is not None and _is_logged(run.config, step)

    # 2) Advantages or rewards of each token, then the updates, in the thread that owns the devices.
    def learn() -> tuple[np.ndarray, np.ndarray | None, Metrics]:
        placed, aims = learner.targets(run.state, packed, members)
        if placed is None:
            return aims, None, {}
        of_tokens = learner.token_advantages(run.state, placed) if looks_at_tokens else None
        run.state, metrics = learner.update(run.state, placed)
        run.skipped.observe(step, metrics, placed.host)
        return aims, of_tokens, metrics

    aims, of_tokens, metrics = rollouts.dispatch(learn)
    if packed is not None and run.config.pack.shares_prompts:
        apart = sum(len(trajectory.ids) for trajectory in trajectories)
        saved = 1 - packed.num_tokens / apart
        metrics = metrics | {"tokens/shared_prompts_fraction": jnp.float32(saved)}
    # 3) For people to look at: with a critic the aims are rewards, and each token has an advantage of its own.
    if run.config.critic is None:
        for i, aim in zip(batch.chosen, aims, strict=True):
            shown[i] = float(aim)
    elif packed is not None and of_tokens is not None:
        for k, i in enumerate(in_batch):
            own = of_tokens[packed.trajectory_ids == k]  # without a prompt's shared tokens: 0 there
            shared = len(trajectories[k].ids) - len(own)
            shown[batch.chosen[i]] = np.pad(own, (shared, 0))
    return shown, metrics


def _validate(run: Run, rollouts: Rollouts, step: int) -> dict[str, float]:
    """Sampled accuracy and calls on validation problems, with the updated policy.

    Counts only, and a warning, where too many answers were lost: the curve has no point there.
    """
    schedule = run.config.schedule
    run.begin_decoding()
    groups = rollouts.validate(run.validation, step + 1, run.policy)
    if run.config.offloads_learner:
        run.end_decoding(rollouts.unload)
    tools = run.worker.collector.tools.names
    evaluation = evaluation_of(groups, schedule.eval_max_lost_fraction, tools)
    if evaluation.overall["lost"] and hosts.is_first():
        left_out = " and has no figures" if evaluation.is_refused else ""
        print(
            f"warning: step {step}: validation: {lost_text(evaluation.overall)}, at most "
            f"{schedule.eval_max_lost_fraction:.1%} may be{left_out}",
            file=sys.stderr,
            flush=True,
        )
    return evaluation.metrics()
