"""A sweep: points of a grid times seeds, each a run of its own, with one table and one page at the end (docs/sweeps.md).

  python -m experiments.sweep grid.toml [--workdir runs/grid] [--jobs 2] [--dry_run] [--json PATH]
  python -m experiments.sweep grid.toml --print_jobs [train]
  python -m experiments.sweep grid.toml --print_jobs launch_tpu \
      --launch_flags '--type v5e-8 --zone us-west4-a --project my-project --bucket gs://my-bucket/sweep --spot'

The file names a run, what varies, and seeds. All configurations are built before anything starts, and one wrong binding
refuses the sweep. Ctrl-C is safe: the same command skips what is finished and resumes the rest. --print_jobs prints a
command for each job that is not finished, to run elsewhere; --table shows what is there and starts nothing.

WORKDIR/sweep.json (and --json PATH) hold {"settings": {"run", "points": {point: [binding]}, "seeds", "steps", "init_from",
"file", "metrics"}, "jobs": [{"job", "point", "seed", "workdir", "state", "is_done", "step", "steps", "metrics": {name: value
or null}}], "points": {point: {metric: {"mean", "low", "high": of the t-interval of 95 %, null below two seeds, "seeds": {seed:
value}}}}, "differences": the same of each point less the first, seed by seed, "how": {"command", "commit", "machine", "seconds"}, "commands": of --print_jobs, [{"job", "command": words, "fetch":
words or null}]}; WORKDIR/report.html is the page. The exit status is 1 if a job failed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jaxtool.cli import entry
from jaxtool.config.places import command_words

if TYPE_CHECKING:  # imported where they are used: the flags need no jax
    from jaxtool.study.sweep import SweepJob
    from jaxtool.study.sweep_files import Sweep


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sweep", type=entry.input_path, metavar="GRID.toml", help="see docs/sweeps.md"
    )
    parser.add_argument("--workdir", type=entry.local_path, help="default: runs/GRID")
    parser.add_argument("--jobs", type=int, help="processes side by side; one a core, or one GPU")
    parser.add_argument("--yes", action="store_true", help="also more than 64 jobs")
    parser.add_argument(
        "--sandbox",
        action="append",
        default=[],
        help="address of a running sandbox server; without one each run starts its own",
    )
    parser.add_argument(
        "--search", action="append", default=[], help="address of a running search server"
    )
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--dry_run", action="store_true", help="check all, list the jobs and end")
    only.add_argument("--table", action="store_true", help="table and page of what is there")
    only.add_argument(
        "--print_jobs",
        nargs="?",
        const="train",
        choices=("train", "launch_tpu"),
        help="print a command for each job that is not finished: experiments.train, or experiments.launch_tpu",
    )
    parser.add_argument(
        "--launch_flags",
        metavar="'--type ...'",
        help="of --print_jobs launch_tpu: the flags of the slice, in quotes, the same for each job",
    )
    entry.add_log_flag(parser)
    entry.add_figure_flags(parser)
    entry.add_json_flag(parser, "write sweep.json here as well")
    arguments = parser.parse_args()
    if (arguments.print_jobs == "launch_tpu") != (arguments.launch_flags is not None):
        parser.error(
            "--print_jobs launch_tpu and --launch_flags '--type ... --bucket ...' need each other"
        )
    return arguments


def main() -> None:
    arguments = parse()
    from jaxtool.study import sweep as sweeps
    from jaxtool.study.job_pool import JobFailed, split_cores, usable_cores
    from jaxtool.study.sweep_files import MOST_JOBS, load_sweep

    started = time.monotonic()
    trackers = entry.trackers_of(arguments)
    sweep = load_sweep(arguments.sweep, None if arguments.yes else MOST_JOBS)
    workdir = arguments.workdir or Path("runs", arguments.sweep.stem)
    jobs = sweeps.jobs_of(sweep, workdir)
    sweeps.check(sweep, jobs, workdir)
    left = [job for job in jobs if not job.is_done()]
    if arguments.print_jobs is not None:
        print_jobs(arguments, sweep, jobs, left)
        return
    if arguments.dry_run:
        dry_run(arguments, sweep, jobs)
        return
    failure: JobFailed | None = None
    if left and not arguments.table:
        cores = usable_cores()
        asked = entry.share_accelerator(arguments.jobs) or arguments.jobs
        # Not of the jobs that are left: a resumed run has the cores that it had, and so its bits.
        options = sweeps.Options(
            places=split_cores(cores, min(len(cores), len(jobs)) if asked is None else asked),
            sandbox_addresses=tuple(arguments.sandbox),
            search_addresses=tuple(arguments.search),
            trackers=trackers,
        )
        try:
            sweeps.run(sweep, jobs, workdir, options, _say)
        except JobFailed as error:  # the others' figures first
            failure = error
    how = {
        "command": shlex.join([*command_words("sweep"), *sys.argv[1:]]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": round(time.monotonic() - started),
    }
    show(arguments, sweep, jobs, workdir, how)
    if failure is not None:
        raise failure


def print_jobs(
    arguments: argparse.Namespace, sweep: Sweep, jobs: Sequence[SweepJob], left: Sequence[SweepJob]
) -> None:
    """The commands on standard output, so that they can be piped into a shell or a scheduler."""
    from jaxtool.study import sweep_commands

    servers = [word for kind in ("sandbox", "search") for word in _repeated(arguments, kind)]
    if arguments.print_jobs == "train":
        commands = [sweep_commands.train_command(sweep, job, servers) for job in left]
        fetches: list[list[str] | None] = [None] * len(left)
    else:
        flags = [*shlex.split(arguments.launch_flags), *servers]
        bucket = _checked_bucket(sweep, left, flags)
        commands = [sweep_commands.launch_command(sweep, job, flags) for job in left]
        fetches = [sweep_commands.fetch_command(sweep, job, bucket) for job in left]
    for job, command, fetch in zip(left, commands, fetches, strict=True):
        print(f"# {job.name}\n{shlex.join(command)}")
        if fetch is not None:
            print(f"# when it has ended: {shlex.join(fetch)}")
    print(f"{len(jobs) - len(left)} of {len(jobs)} jobs are finished", file=sys.stderr)
    rows = [
        {"job": job.name, "command": command, "fetch": fetch}
        for job, command, fetch in zip(left, commands, fetches, strict=True)
    ]
    _write(arguments.json, _found(sweep, jobs) | {"commands": rows})


def _repeated(arguments: argparse.Namespace, name: str) -> list[str]:
    return [word for value in getattr(arguments, name) for word in (f"--{name}", value)]


def _checked_bucket(sweep: Sweep, left: Sequence[SweepJob], flags: list[str]) -> str:
    """The bucket of --launch_flags, which launch_tpu takes for every job."""
    from jaxtool.cli import launch_tpu
    from jaxtool.cluster import shipping
    from jaxtool.cluster.tpu_job import TpuJob
    from jaxtool.cluster.tpu_types import tpu_type
    from jaxtool.study.sweep_commands import cloud_name

    given = launch_tpu.parse([*sweep.run, *flags])
    owned = {"name": None, "gin_param": [], "seed": 0, "steps": None, "init_from": None}
    for name, default in owned.items():
        if getattr(given, name) != default:
            raise ValueError(
                f"--launch_flags: --{name} is the sweep's: write it in {sweep.file}, not here"
            )
    for job in left:
        if job.init_from is not None:
            shipping.check_path(job.init_from, f"{sweep.file}: init_from {job.init_from}", set())
        TpuJob(
            name=cloud_name(sweep, job),
            project=given.project,
            zone=given.zone,
            tpu=tpu_type(given.type),
            bucket=given.bucket,
        )
    return given.bucket


def dry_run(arguments: argparse.Namespace, sweep: Sweep, jobs: Sequence[SweepJob]) -> None:
    """Lists the jobs, which have been checked."""
    from jaxtool.report.console_tables import print_tables
    from jaxtool.report.page import Table

    found = _found(sweep, jobs)
    rows = tuple(
        (
            *(row["job"], row["state"], f"{row['step']}/{row['steps']}"),
            "; ".join(job.composed.point.params) or "as it is",
        )
        for row, job in zip(found["jobs"], jobs, strict=True)
    )
    columns = ("Job", "State", "Steps", "Bindings")
    print_tables([Table(title=f"Jobs of {sweep.file}", columns=columns, rows=rows)])
    print(f"all right: {len(jobs)} jobs; nothing started")
    _write(arguments.json, found)


def show(
    arguments: argparse.Namespace,
    sweep: Sweep,
    jobs: Sequence[SweepJob],
    workdir: Path,
    how: dict[str, Any],
) -> None:
    """The table, sweep.json and the page."""
    from jaxtool.config.record import git_commit
    from jaxtool.report.console_tables import print_tables
    from jaxtool.report.page import write_report
    from jaxtool.rundir.trackers.opening import log_outcome
    from jaxtool.study import sweep_figures
    from jaxtool.study.sweep import write_record

    results = sweep_figures.results_of(jobs)
    found = sweep_figures.as_json(sweep, results)
    found["how"] = how | {"commit": git_commit()}
    workdir.mkdir(parents=True, exist_ok=True)
    write_record(workdir, found)
    _write(arguments.json, found)
    report = sweep_figures.sweep_report(
        found, results, title=workdir.name, config=Path(sweep.file).read_text(encoding="utf-8")
    )
    page = write_report(workdir / "report.html", report)
    print_tables(sweep_figures.tables(found))
    entry.write_figures(arguments, report)
    log_outcome(entry.trackers_of(arguments), workdir, page)
    print(f"report {page}")


def _found(sweep: Sweep, jobs: Sequence[SweepJob]) -> dict[str, Any]:
    from jaxtool.study import sweep_figures

    return sweep_figures.as_json(sweep, sweep_figures.results_of(jobs))


def _write(path: Path | None, record: dict[str, Any]) -> None:
    if path is not None:
        from jaxtool.core.files import write_text

        write_text(path, json.dumps(record, indent=1))


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    entry.run(main)
