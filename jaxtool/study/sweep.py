"""A sweep: points times seeds, each a run as `experiments.train` makes it, side by side in processes.

WORKDIR/POINT/seed0 is the run directory of a job, WORKDIR/jobs its description and its log, WORKDIR/sweep.json what the
sweep is. All configurations are built, and all directories asked whose they are, before anything starts. A job that is
finished is not run again, one that was ended resumes. More points, more seeds and more steps continue a sweep.

The study (`runner`) takes the same road: directory, descriptions, processes and resumes are those of `stage_jobs`. What is
its own: its points are files, its stages start from one another's policies, each is then asked on a split, and its tables
compare variants by name. A sweep's job is a single run that needs no other job.

Not covered: figures and the page (`sweep_figures`), jobs on other machines (`sweep_commands`).
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtool.config import loader
from jaxtool.config.loader import ConfigError
from jaxtool.core.files import one_line, write_text
from jaxtool.rundir.checkpoints import is_policy
from jaxtool.rundir.run_record import read_record
from jaxtool.rundir.run_start import Identity, check_start
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.rundir.workdir import is_begun
from jaxtool.study.job_pool import Job
from jaxtool.study.stage_jobs import job_of, run_stages, trackers_of, training
from jaxtool.study.sweep_files import Point, Sweep
from jaxtool.train import run_files
from jaxtool.train.old_names import OLD_NAMES
from jaxtool.train.resume_rules import MAY_CHANGE
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.sft_loop import SftRunConfig
from jaxtool.train.weights import weights_named

RECORD = "sweep.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Composed:
    """A point whose configuration is built."""

    point: Point
    params: tuple[str, ...]  # bindings over the run, those of `steps` too
    config: RlConfig | SftRunConfig

    @property
    def steps(self) -> int:
        return (
            self.config.schedule.steps if isinstance(self.config, RlConfig) else self.config.steps
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class SweepJob:
    """A point and a seed."""

    composed: Composed
    seed: int
    init_from: str | None
    workdir: Path  # of the run

    @property
    def name(self) -> str:
        return f"{self.composed.point.name}/seed{self.seed}"

    @property
    def identity(self) -> Identity:
        start = None if self.init_from is None else Path(self.init_from)
        composed = self.composed
        return Identity(
            config=composed.config, seed=self.seed, init_from=start, steps=composed.steps
        )

    def is_done(self) -> bool:
        record = read_record(self.workdir)
        is_whole = record is not None and record.finished_step == self.composed.steps
        return is_whole and is_policy(self.workdir / "policy")


def jobs_of(sweep: Sweep, workdir: Path) -> tuple[SweepJob, ...]:
    """Every job, all points of a seed before the next seed, so that a first look at all points comes early.

    Raises:
      ConfigError: as `composed`.
    """
    points = composed(sweep)
    return tuple(
        SweepJob(
            composed=point,
            seed=seed,
            init_from=sweep.start_of(seed),
            workdir=workdir / point.point.name / f"seed{seed}",
        )
        for seed in sweep.seeds
        for point in points
    )


def composed(sweep: Sweep) -> tuple[Composed, ...]:
    """The configurations of all points.

    Raises:
      ConfigError: the run does not load, a binding of a point is wrong or there twice, or two points are one run;
        one line with file, line, job and binding.
    """
    try:
        params = run_files.steps_params(sweep.run, [], sweep.steps)
        run_files.load_run(sweep.run, params)
    except ValueError as error:
        raise ConfigError(
            f"{sweep.file}:{sweep.lines['run']}: run does not load: {one_line(error)}"
        ) from None
    found: dict[tuple[tuple[str, str], ...], Point] = {}
    points = []
    for point in sweep.points:
        one = _composed(sweep, point)
        identity = Identity(config=one.config, seed=0, init_from=None, steps=one.steps)
        values = tuple((path, each.value) for path, each in identity.settings().items())
        if (same := found.setdefault(values, point)) is not point:
            raise ConfigError(
                f"{sweep.file}:{point.line}: job {_first_job(sweep, point)} is the same run as {same.name} of line "
                f"{same.line}: leave one out"
            )
        points.append(one)
    return tuple(points)


def _composed(sweep: Sweep, point: Point) -> Composed:
    try:
        params = tuple(run_files.steps_params(sweep.run, point.params, sweep.steps))
        config = run_files.load_run(sweep.run, params)
    except ValueError as error:
        raise _blamed(sweep, point, one_line(error)) from None
    _check_bound_once(sweep, point, params)
    return Composed(point=point, params=params, config=config)


def _blamed(sweep: Sweep, point: Point, error: str) -> ConfigError:
    """The error with the binding that it comes from: the one it names, or the first without which the others load."""
    named = [bound for bound in point.bindings if f"--gin_param '{bound.param}'" in error]
    if named:
        bound = named[0]
        error = error.removeprefix(f"--gin_param '{bound.param}': ")
    else:
        loading = [count for count in range(len(point.params)) if _loads(sweep, point, count)]
        bound = point.bindings[max(loading, default=0)]
    return ConfigError(
        f"{sweep.file}:{bound.line}: job {_first_job(sweep, point)}: {bound.param}: {error}"
    )


def _loads(sweep: Sweep, point: Point, count: int) -> bool:
    """Whether the run loads with the first `count` bindings."""
    try:
        params = run_files.steps_params(sweep.run, point.params[:count], sweep.steps)
        run_files.load_run(sweep.run, params)
    except ValueError:
        return False
    return True


def _check_bound_once(sweep: Sweep, point: Point, params: Sequence[str]) -> None:
    """Two names of one thing (Schedule.samples, rl_config.Schedule.samples) are found by what they bind."""
    bindings = loader.read(sweep.run, params, OLD_NAMES)[-len(params) :] if params else []
    known: dict[Any, int] = {}
    for number, binding in enumerate(bindings):
        first = known.setdefault(binding.key, number)
        if first == number:
            continue
        own = len(point.bindings)
        line = point.bindings[number].line if number < own else point.bindings[first].line
        other = (
            f"line {point.bindings[first].line}"
            if number < own
            else f"`steps`, line {sweep.lines['steps']}"
        )
        shown = params[number if number < own else first]
        raise ConfigError(
            f"{sweep.file}:{line}: job {_first_job(sweep, point)}: {shown}: {other} binds it, too: leave one out"
        )


def _first_job(sweep: Sweep, point: Point) -> str:
    return f"{point.name}/seed{sweep.seeds[0]}"


def check(sweep: Sweep, jobs: Sequence[SweepJob], workdir: Path) -> None:
    """What would be refused later, before anything starts. Reads no weights and writes nothing.

    Raises:
      ValueError: the directory holds another sweep or a run, or that of a job another run, or there are no weights to
        start from; one line.
      FileNotFoundError: a tokenizer is not there.
    """
    if is_begun(workdir):
        raise ValueError(f"{workdir} holds a run: choose another --workdir for the sweep")
    _check_same(sweep, workdir)
    for job in jobs:
        check_start(job.workdir, job.identity, job.identity.settings(), MAY_CHANGE)
    tokenizers: list[Any] = []
    starts: set[str] = set()
    for job in jobs:
        if job.init_from is not None and job.init_from not in starts:
            starts.add(job.init_from)
            _check_weights(sweep, job)
        if (tokenizer := job.composed.config.tokenizer) not in tokenizers:
            tokenizers.append(tokenizer)
            tokenizer.load()


def _check_weights(sweep: Sweep, job: SweepJob) -> None:
    assert job.init_from is not None
    try:
        weights_named(job.init_from, job.composed.config.policy)
    except (ValueError, OSError) as error:
        place = f"{sweep.file}:{sweep.lines['init_from']}"
        raise ValueError(f"{place}: job {job.name}: init_from: {one_line(error)}") from None


def settings_of(sweep: Sweep) -> dict[str, Any]:
    """What makes a sweep another one."""
    return {
        "run": list(sweep.run),
        "points": {point.name: list(point.params) for point in sweep.points},
        "seeds": list(sweep.seeds),
        "steps": sweep.steps,
        "init_from": sweep.init_from,
    }


def _check_same(sweep: Sweep, workdir: Path) -> None:
    path = workdir / RECORD
    if not path.is_file():
        return
    try:
        before = json.loads(path.read_text(encoding="utf-8"))["settings"]
        differing = _differences(before, settings_of(sweep))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): choose another --workdir, or put it back"
        ) from None
    if differing:
        raise ValueError(
            f"{workdir} holds another sweep ({'; '.join(differing)}): put it back or choose another --workdir; "
            "more points, seeds and steps may be added"
        )


def _differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What is no addition. The steps are compared with those of each run."""
    found = [
        f"{key}: {before[key]} -> {now[key]}"
        for key in ("run", "init_from")
        if before[key] != now[key]
    ]
    for name, params in before["points"].items():
        if name not in now["points"]:
            found.append(f"point {name} is gone")
        elif now["points"][name] != params:
            found.append(f"point {name}: {params} -> {now['points'][name]}")
    return found + [f"seed {seed} is gone" for seed in before["seeds"] if seed not in now["seeds"]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How the jobs of a sweep are run here."""

    places: Sequence[tuple[int, ...]]  # cores of each process, see `job_pool.split_cores`
    sandbox_addresses: tuple[str, ...] = ()  # running servers; none: each run starts its own
    search_addresses: tuple[str, ...] = ()
    trackers: tuple[TrackerSpec, ...] = ()  # of --log


def run(
    sweep: Sweep,
    jobs: Sequence[SweepJob],
    workdir: Path,
    options: Options,
    report: Callable[[str], None] = print,
) -> None:
    """Makes the runs that are not finished. Call `check` before.

    Raises:
      JobFailed: a run failed three times; the others were made before.
      ValueError: another process runs a sweep in the directory.
    """

    def pool(_: ExitStack) -> list[Job]:
        write_record(workdir, {"settings": settings_of(sweep)})
        return [_pool_job(sweep, job, workdir, options) for job in jobs]

    run_stages(workdir, pool, options.places, report, goes_on=True)


def write_record(workdir: Path, record: dict[str, Any]) -> None:
    write_text(workdir / RECORD, json.dumps(record, indent=1))


def _pool_job(sweep: Sweep, job: SweepJob, workdir: Path, options: Options) -> Job:
    description = training(
        files=sweep.run,
        params=job.composed.params,
        workdir=job.workdir,
        seed=job.seed,
        init_from=job.init_from,
        sandbox_addresses=options.sandbox_addresses,
        search_addresses=options.search_addresses,
        trackers=trackers_of(options.trackers, workdir, job.name.replace("/", "-")),
    )
    return job_of(workdir, job.name, description, is_done=job.is_done, kind=job.composed.point.name)
