"""What the steps of an RL run share: opened before the first step, set to a checkpoint, saved in one.

Not covered: the steps (`rl_loop`).
"""

import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from jaxtool.core import rng
from jaxtool.core.types import Problem
from jaxtool.data.batches import ProblemBatches
from jaxtool.decode.engine import EngineCounts
from jaxtool.learn.grpo import needs_reference
from jaxtool.learn.learner import Learner, make_learner
from jaxtool.learn.policy_view import split_policy
from jaxtool.model.transformer import Params
from jaxtool.parallel import hosts
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.parallel.host_memory import to_device_memory, to_host_memory
from jaxtool.rewards.fewest_calls import CallStore
from jaxtool.rundir.checkpoints import Checkpoints
from jaxtool.rundir.timeline import Timeline
from jaxtool.tools.health import ToolHealth
from jaxtool.tools.sandbox_client import Totals
from jaxtool.train.lora_run import check_frozen, frozen_record
from jaxtool.train.numerics import learner_setup, numerics_lines
from jaxtool.train.problem_sets import ProblemSets
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import RolloutWorker
from jaxtool.train.skipped_updates import SkippedUpdates


@dataclasses.dataclass(kw_only=True)
class Run:
    """What the steps of a run share. `state`, `store` and what the others hold change step by step."""

    config: RlConfig
    seed: int
    worker: RolloutWorker
    learner: Learner[Any]
    state: Any  # the learner's
    frozen: dict[str, Any]  # with LoRA names the parameters that stay as they are
    batches: ProblemBatches
    validation: tuple[Problem, ...]
    store: CallStore
    health: ToolHealth  # starts anew with every process
    skipped: SkippedUpdates  # starts anew with every process

    @property
    def policy(self) -> Params:
        return self.learner.policy(self.state)

    @property
    def timeline(self) -> Timeline:
        return self.worker.collector.activity.timeline

    def phase(self, name: str) -> AbstractContextManager[None]:
        """What the loop does in a block, for those who watch it."""
        return self.timeline.phase(name)

    def begin_decoding(self) -> None:
        """Before parameters are published. With `RlConfig.offloads_learner` only the policy's parameters stay on the
        devices, and these until the decoder has its copy."""
        if self.config.offloads_learner:
            self.state = self.learner.with_rest(self.state, to_host_memory)

    def leave_to_decoder(self) -> None:
        """When parameters are published, before the cache is made."""
        if self.config.offloads_learner:
            self.state = self.learner.with_policy(self.state, to_host_memory)

    def end_decoding(self, unload: Callable[[], None] | None = None) -> None:
        """When no row is decoded any more. With `RlConfig.unloads_decoder` the devices are the learner's again.

        Args:
          unload: `Rollouts.unload`, once there are rollouts.
        """
        if self.config.unloads_decoder:
            (unload or self.worker.engine.unload)()
        if self.config.offloads_learner:
            self.state = self.learner.with_policy(self.state, to_device_memory)
            self.state = self.learner.with_rest(self.state, to_device_memory)

    def meta(self, queued: list[list[Problem]]) -> dict[str, Any]:
        """What a checkpoint keeps besides the learner's state; every host must call it."""
        return {
            "batches": self.batches.get_state(),
            "queued": [[problem.problem_id for problem in problems] for problems in queued],
            "store": self.store.state_dict(),
            "counts": dataclasses.asdict(self.worker.total_counts()),
            "tool_totals": self.worker.tool_totals(),
        } | self.frozen


def open_run(
    config: RlConfig,
    workdir: Path,
    seed: int,
    worker: RolloutWorker,
    params: Params,
    sharding: Sharding,
    problems: ProblemSets,
) -> Run:
    """The run before its first step; says how learner and decoder compute."""
    if config.offloads_learner:
        worker.engine.unload()  # there is room for the whole state first; `load` makes the cache again
    trained, view = split_policy(
        params,
        worker.model,
        config.lora,
        rng.key(seed, "lora"),
        sharding,
        keeps_first=needs_reference(config.grpo),
    )
    learner = make_learner(learner_setup(config, worker.model, sharding), config.critic, view)
    for line in numerics_lines(config, worker.model, learner.setup):
        print(line, flush=True)
    run = Run(
        config=config,
        seed=seed,
        worker=worker,
        learner=learner,
        state=learner.start(trained),
        frozen=frozen_record(view.frozen),
        batches=problems.batches(config, seed),
        validation=problems.validation,
        store=CallStore(),
        health=ToolHealth(config.sandbox.health),
        skipped=SkippedUpdates(
            workdir,
            limit=config.schedule.stop_after_skipped,
            steps=config.schedule.steps,
            settings=_learning_rates(config),
        ),
    )
    worker.engine.on_published = run.leave_to_decoder
    return run


def restore(run: Run, checkpoints: Checkpoints) -> tuple[int, list[list[Problem]]]:
    """Sets `run` to its last checkpoint; returns the next step and the batches that were queued."""
    start, run.state, meta = checkpoints.restore_newest(run.state)
    if not start:
        return 0, []
    check_frozen(run.learner.view.frozen, meta)
    run.batches.set_state(meta["batches"])
    run.store = CallStore.from_state_dict(meta["store"])
    if hosts.is_first():  # they are those of all hosts
        run.worker.engine.counts = EngineCounts(**meta["counts"])
        if run.worker.client is not None:
            run.worker.client.continue_from(Totals(**meta["tool_totals"]))
    return start, [run.batches.named(names) for names in meta["queued"]]


def _learning_rates(config: RlConfig) -> str:
    rates = [f"OptimizerConfig.learning_rate={config.optimizer.learning_rate:g}"]
    if config.critic is not None:
        rates.append(f"of the critic {config.critic.optimizer.learning_rate:g}")
    return ", ".join(rates)
