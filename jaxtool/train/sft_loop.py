"""The cold-start run: demonstrations to a policy. Exactly resumable; a finished run is left alone."""

import dataclasses
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import jax
from jax.sharding import Mesh

from jaxtool.core import rng
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Trajectory
from jaxtool.data.tokenizer import Tokenizer, check_has_text
from jaxtool.learn.optimizer import OptimizerConfig
from jaxtool.learn.policy_view import split_policy
from jaxtool.learn.sft import SftConfig, SftSetup, check_rows
from jaxtool.learn.sft_learner import SftLearner
from jaxtool.model.config import ModelConfig
from jaxtool.model.lora import LoraConfig, source_dtype
from jaxtool.model.param_axes import check_divides
from jaxtool.model.sources import PolicySource
from jaxtool.parallel.axis_rules import AxisRules, Sharding
from jaxtool.parallel.mesh import MeshConfig, make_mesh
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.renderers.renderer import Renderer, load_renderer
from jaxtool.renderers.tool_checks import check_tools
from jaxtool.rollout.batching import PackConfig, to_batch
from jaxtool.rundir.checkpoints import Checkpoints
from jaxtool.rundir.health import WatchConfig
from jaxtool.rundir.kept_policies import KeepPolicies
from jaxtool.rundir.live_status import UPDATE
from jaxtool.rundir.progress import ProgressDisplay
from jaxtool.rundir.run_log import open_log
from jaxtool.rundir.run_start import Identity, Launch, RunStart, open_start
from jaxtool.rundir.stopping import StopNotice
from jaxtool.rundir.workdir import holds_workdir
from jaxtool.tools.base import ToolSource
from jaxtool.tools.menu import check_names
from jaxtool.train.lora_run import check_frozen, frozen_record, save_kept, save_result
from jaxtool.train.resume_rules import MAY_CHANGE, say_changes
from jaxtool.train.rollout_worker import check_vocabulary
from jaxtool.train.run_stops import CheckpointTimes
from jaxtool.train.skipped_updates import SkippedUpdates
from jaxtool.train.sources import TokenizerSource
from jaxtool.train.watching import RunWatch, new_activity
from jaxtool.train.weights import weights_named


class Demonstrations(Protocol):
    """A pure function of (seed, index): the iterator's state is the step."""

    def take(
        self, count: int, *, seed: int, index: int, renderer: Renderer, tokenizer: Tokenizer
    ) -> list[Trajectory]: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationStream:
    """So many demonstrations per batch, written in one renderer."""

    demonstrations: Demonstrations
    renderer: str
    count: int
    # Those of the run that follows: what prompts say of them, and what calls are checked against. None is opened.
    tools: tuple[ToolSource, ...] = ()

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ValueError(f"a stream needs {self.count=} >= 1 demonstrations per batch")

    def load_renderer(self) -> Renderer:
        """The renderer with the stream's tools.

        Raises:
          ValueError: the two do not go together.
        """
        renderer = load_renderer(self.renderer)
        specs = [source.spec for source in self.tools]
        check_names(specs, "DemonstrationStream.tools")
        if specs and renderer.tool is None:
            raise ValueError(
                f"DemonstrationStream.tools holds {', '.join(spec.name for spec in specs)}, and the renderer "
                f"{renderer.name!r} calls no tool: leave tools out, or use a renderer with a [tool] table"
            )
        return renderer.with_tools(specs) if specs else renderer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SftRunConfig:
    """One cold start."""

    policy: PolicySource
    tokenizer: TokenizerSource
    streams: tuple[DemonstrationStream, ...]
    optimizer: OptimizerConfig
    steps: int
    lora: LoraConfig | None = None  # trains an adapter; None: every parameter
    sft: SftConfig = dataclasses.field(default_factory=SftConfig)
    pack: PackConfig = dataclasses.field(default_factory=PackConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=lambda: MeshConfig(may_idle=True))
    axes: AxisRules = dataclasses.field(default_factory=AxisRules)
    checkpoint_every: int = 100  # steps
    checkpoint_minutes: float = (
        0.0  # between checkpoints at the most, looked at after each step; 0: steps alone
    )
    keep_policies: KeepPolicies | None = None  # besides the last one; None: none
    log_every: int = 10  # steps between rows of metrics; the last step has one too
    stop_after_skipped: int = 3  # steps in a row whose loss or gradient is not finite end the run

    def __post_init__(self) -> None:
        if not self.streams:
            raise ValueError("SftRunConfig.streams is empty: there is nothing to learn from")
        check_range(self, "steps", "checkpoint_every", "log_every", "stop_after_skipped", least=1)
        check_range(self, "checkpoint_minutes", least=0)
        self.optimizer.check_goes_with(self.lora)
        if self.keep_policies is not None and self.keep_policies.best:
            raise ValueError(
                "KeepPolicies.best: a cold start has no validations; set KeepPolicies.every in its place"
            )


@holds_workdir
def train(
    config: SftRunConfig,
    *,
    workdir: Path,
    seed: int,
    init_from: Path | None = None,
    mesh: Mesh | None = None,
    launch: Launch = Launch(),  # noqa: B008 (frozen)
) -> Path:
    """Runs or resumes a cold start; returns the directory of the saved policy.

    Args:
      init_from: a name of weights (`weights_named`), in place of `config.policy`.
      mesh: in place of the one that `config.mesh` makes of all devices.
      launch: what the command knows, for the record of the run.

    Raises:
      ValueError: another run is in the directory; what differs is named.
    """
    identity = Identity(config=config, seed=seed, init_from=init_from, steps=config.steps)
    with (
        StopNotice(workdir, keeps="finished steps") as stop,
        open_start(workdir, identity, launch=launch, may_change=MAY_CHANGE) as this_start,
    ):
        if not this_start.is_finished:
            stop.before_the_end(lambda: this_start.end("stopped", None))
            _train(config, this_start, workdir, seed, init_from, mesh, launch, stop)
    return workdir / "policy"


def _train(
    config: SftRunConfig,
    this_start: RunStart,
    workdir: Path,
    seed: int,
    init_from: Path | None,
    mesh: Mesh | None,
    launch: Launch,
    stop: StopNotice,
) -> None:
    """Everything from the checks to the saved policy."""
    source = config.policy if init_from is None else weights_named(init_from, config.policy)
    sharding = make_sharding(config, source.model_config(), mesh)
    model, params = source.load(sharding, seed, source_dtype(config.lora))
    renderers, tokenizer = load_text(config)
    check_vocabulary(tokenizer, model)
    setup = SftSetup(model=model, sft=config.sft, optimizer=config.optimizer, sharding=sharding)
    trained, view = split_policy(params, model, config.lora, rng.key(seed, "lora"), sharding)
    learner = SftLearner(setup=setup, view=view)
    state = learner.start(trained)
    del params, trained
    skipped = SkippedUpdates(
        workdir,
        limit=config.stop_after_skipped,
        steps=config.steps,
        settings=f"OptimizerConfig.learning_rate={config.optimizer.learning_rate:g}",
    )
    with Checkpoints(workdir / "checkpoints") as checkpoints:
        start, state, meta = checkpoints.restore_newest(state)
        if start:
            check_frozen(view.frozen, meta)
        this_start.begin(start)
        optimizers = {"optimizer": config.optimizer}
        say_changes(this_start, optimizers, update=start, last_update=config.steps)
        with (
            ExitStack() as stack,
            open_log(stack, workdir, start - 1 if start else None, this_start, launch) as log,
            ProgressDisplay(workdir.name, config.steps, initial=start) as progress,
        ):
            kept = (config.steps, config.keep_policies)
            save_kept(workdir, start, *kept, state.params, view, model, sharding)
            activity = new_activity(launch)
            watch = stack.enter_context(
                RunWatch(
                    *(workdir, WatchConfig(), activity),
                    steps=config.steps,
                    start=start,
                    note=progress.note,
                )
            )
            due = CheckpointTimes(config.checkpoint_every, config.checkpoint_minutes, config.steps)
            for step in range(start, config.steps):
                stop.check_step()
                with watch.step(step), activity.timeline.phase(UPDATE):
                    demonstrations = take(config.streams, renderers, tokenizer, seed, step)
                    batch = to_batch(demonstrations, config.pack)
                    state, metrics = learner.update(state, batch)
                    skipped.observe(step, metrics, batch)
                    is_row = (step + 1) % config.log_every == 0 or step + 1 == config.steps
                    if is_row or skipped.is_over:
                        values = jax.device_get(metrics) | {"sft/skipped_updates": skipped.settle()}
                        log.write(step, values)
                        progress.update(step + 1, {"loss": float(values["sft/loss_nats"])})
                        skipped.check()
                    is_stopped = stop.is_agreed()
                    # The last step has a checkpoint too, from which a longer run goes on.
                    if due.is_due(step + 1) or is_stopped:
                        log.sync()
                        checkpoints.save(
                            step + 1, state, {"seed": seed} | frozen_record(view.frozen)
                        )
                    save_kept(workdir, step + 1, *kept, state.params, view, model, sharding)
    save_result(workdir, state.params, view, model, sharding, source)
    this_start.finish()


def make_sharding(config: SftRunConfig, model: ModelConfig, mesh: Mesh | None = None) -> Sharding:
    """Over all devices, or as many as divide; raises ValueError if a mesh that the run names does not.

    Args:
      mesh: in place of the one that `config.mesh` makes of all devices.
    """
    if mesh is None:
        mesh = make_mesh(config.mesh, check=lambda mesh: check_mesh(mesh, config, model))
    else:
        check_mesh(mesh, config, model)
    return Sharding(mesh, config.axes)


def check_mesh(mesh: Mesh, config: SftRunConfig, model: ModelConfig) -> None:
    """Raises ValueError if the policy, a gradient block or a packed row does not divide."""
    sharding = Sharding(mesh, config.axes)
    check_rows(config.sft, config.pack.row_tokens, sharding)
    check_divides(model, sharding)


def load_text(config: SftRunConfig) -> tuple[list[Renderer], Tokenizer]:
    """One renderer a stream.

    Raises:
      ValueError: the tokenizer cannot write a tag, or a row of a file cannot be written or is too long.
    """
    tokenizer = config.tokenizer.load()
    renderers = [stream.load_renderer() for stream in config.streams]
    for stream, renderer in zip(config.streams, renderers, strict=True):
        check_has_text(tokenizer, renderer.all_tags)
        if stream.tools:
            check_tools(renderer, tokenizer)
        if isinstance(stream.demonstrations, DemonstrationFile):
            stream.demonstrations.check_rows(
                config.pack.row_tokens, renderer=renderer, tokenizer=tokenizer
            )
    return renderers, tokenizer


def take(
    streams: Sequence[DemonstrationStream],
    renderers: Sequence[Renderer],
    tokenizer: Tokenizer,
    seed: int,
    step: int,
) -> list[Trajectory]:
    """The demonstrations of a step, stream by stream."""
    taken: list[Trajectory] = []
    for stream, renderer in zip(streams, renderers, strict=True):
        taken += stream.demonstrations.take(
            stream.count, seed=seed, index=step, renderer=renderer, tokenizer=tokenizer
        )
    return taken
