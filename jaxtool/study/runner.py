"""Runs the study: variants x seeds, each trained and then asked, side by side in processes.

WORKDIR/seed0/VARIANT is the run directory of a variant, WORKDIR/seed0/test/VARIANT.json its answers. What is there
is not done again, but for answers of an older policy or to other questions; a run directory that another
recipe made is refused by name.
"""

import dataclasses
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from jaxtool.data.problems import Split
from jaxtool.rundir.checkpoints import is_policy
from jaxtool.rundir.run_start import Identity, check_start
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.study.fewer_steps import steps_bindings
from jaxtool.study.job_pool import Job, split_cores, usable_cores
from jaxtool.study.records import are_answers_of
from jaxtool.study.stage_jobs import job_of, run_stages, trackers_of, training
from jaxtool.study.suite import RECIPE, Changes, Suite, Variant
from jaxtool.tools.local_server import start_local_server
from jaxtool.train import run_files
from jaxtool.train.resume_rules import LENGTH, MAY_CHANGE
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """What is trained and asked."""

    workdir: Path
    suite: Suite
    variants: tuple[
        Variant, ...
    ]  # of the suite, each after the one that it starts from, see `Suite.select`
    seeds: tuple[int, ...] = (0, 1, 2)
    split: Split = "test"  # "validation" while a recipe is being chosen
    problems: int = 600  # of that split, for each seed
    changes: Changes = dataclasses.field(default_factory=Changes)
    trackers: tuple[TrackerSpec, ...] = ()  # of --log

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"{self.seeds=} must be different numbers, at least one")
        if self.problems < 1:
            raise ValueError(f"{self.problems=} must be >= 1")

    def run_dir(self, variant: str, seed: int) -> Path:
        return self.workdir / f"seed{seed}" / variant

    def policy(self, variant: str, seed: int) -> Path:
        return self.run_dir(variant, seed) / "policy"

    def answers(self, variant: str, seed: int) -> Path:
        return self.workdir / f"seed{seed}" / self.split / f"{variant}.json"

    def params(self, variant: Variant) -> tuple[str, ...]:
        """The study's changes, as bindings over the file of a variant."""
        file = self.suite.file(variant)
        params = self.changes.params if run_files.run_target(file) is RlConfig else ()
        if self.changes.steps is None or not variant.is_trained:
            return params
        return (*params, *steps_bindings([file], params, self.changes.steps))

    def config(self, variant: Variant) -> SftRunConfig | RlConfig:
        """The built configuration of a variant.

        Raises:
          ConfigError: naming file and line of a mistake.
        """
        return run_files.load_run([self.suite.file(variant)], self.params(variant))

    def renderer(self, variant: Variant) -> str:
        """In which the variant's policy is asked."""
        config = self.config(variant)
        if variant.renderer is not None:
            return variant.renderer
        if isinstance(config, RlConfig):
            return config.renderer
        raise ValueError(f"variant {variant.name} has no rollouts: give Variant.renderer")

    def rollout_line(self, variant: Variant) -> list[Variant]:
        """The variant and those with rollouts that it starts from, the first first; empty without rollouts."""
        line: list[Variant] = []
        while variant.is_trained and isinstance(self.config(variant), RlConfig):
            line.insert(0, variant)
            assert variant.start is not None
            variant = self.suite.variants[variant.start]
        return line


def run(study: Study, *, jobs: int, report: Callable[[str], None] = print) -> None:
    """Trains and evaluates what is missing, `jobs` processes side by side.

    Raises:
      JobFailed: naming the process that failed, with the end of its log.
      ValueError: on more jobs than cores, a run directory of another recipe, or a study that runs there.
      FileNotFoundError: the tokenizer is not installed, which a job would say three times later.
    """
    places = split_cores(usable_cores(), jobs)
    for variant in study.variants:
        for seed in study.seeds:
            _check_recipe(study, variant, seed)
    study.config(study.variants[0]).tokenizer.load()

    def jobs_of(stack: ExitStack) -> list[Job]:
        return plan(study, stack.enter_context(start_local_server()))

    run_stages(study.workdir, jobs_of, places, report)


def plan(study: Study, sandbox: str) -> list[Job]:
    """Every job of the study, in the order in which they should start; writes their descriptions.

    Stages come before seeds, so that a first look at all variants does not wait for the last seed's first stage;
    the short evaluations come last, so that the cores are busy until the end.
    """
    each = [(variant, seed) for variant in study.variants for seed in study.seeds]
    training = [_train_job(study, variant, seed, sandbox) for variant, seed in each]
    return training + [_evaluate_job(study, variant, seed, sandbox) for variant, seed in each]


def _train_job(study: Study, variant: Variant, seed: int, sandbox: str) -> Job:
    policy = study.policy(variant.name, seed)
    description = training(
        files=[str(study.suite.file(variant))],
        params=study.params(variant),
        workdir=study.run_dir(variant.name, seed),
        seed=seed,
        init_from=None if variant.start is None else str(study.policy(variant.start, seed)),
        sandbox_addresses=[sandbox],
        trackers=trackers_of(study.trackers, study.workdir, f"{variant.name}-seed{seed}"),
        is_trained=variant.is_trained,
    )
    return job_of(
        study.workdir,
        f"seed{seed}/{variant.name}",
        description,
        needs=() if variant.start is None else (f"seed{seed}/{variant.start}",),
        is_done=lambda: is_policy(policy),
        kind=variant.name,
    )


def _evaluate_job(study: Study, variant: Variant, seed: int, sandbox: str) -> Job:
    output, policy = study.answers(variant.name, seed), study.policy(variant.name, seed)
    trained = f"seed{seed}/{variant.name}"
    has_rollouts = isinstance(study.config(variant), RlConfig)
    recipe = study.suite.variants[RECIPE]
    file = study.suite.file(variant if has_rollouts else recipe)
    asked = {
        "params": list(study.params(variant) if has_rollouts else study.changes.params),
        "renderer": study.renderer(variant),
        "mental_renderer": study.suite.mental_renderer,
        "mental_problems": min(study.suite.mental_problems, study.problems),
        "seed": seed,
        "split": study.split,
        "problems": study.problems,
    }
    description = {
        "kind": "evaluate",
        "files": [str(file)],
        "asked": asked,
        "policy": str(policy),
        "output": str(output),
        "sandbox": sandbox,
    }
    return job_of(
        study.workdir,
        f"{trained}/{study.split}",
        description,
        needs=(trained,),
        is_done=lambda: is_policy(policy) and are_answers_of(output, asked, policy),
        kind="evaluation",
    )


def _check_recipe(study: Study, variant: Variant, seed: int) -> None:
    """Raises ValueError if a run directory was made by another recipe, naming what differs."""
    config, steps = study.config(variant), 0
    if variant.is_trained:
        steps = config.schedule.steps if isinstance(config, RlConfig) else config.steps
    start = None if variant.start is None else study.policy(variant.start, seed)
    identity = Identity(config=config, seed=seed, init_from=start, steps=steps)
    workdir = study.run_dir(variant.name, seed)
    try:
        # A study compares runs of one length.
        check_start(workdir, identity, identity.settings(), MAY_CHANGE - set(LENGTH))
    except ValueError as error:
        raise ValueError(f"{error}. So are the runs that start from it") from None
