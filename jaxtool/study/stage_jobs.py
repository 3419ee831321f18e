"""What a study and a sweep share: a directory of runs that is held, a file for each job, and the pool that runs them.

WORKDIR/jobs has a description and a log of each job; `stage_process` does what a description says. Both name their jobs by
the place of their run. Not covered: which jobs there are (`runner`, `sweep`).
"""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.rundir.trackers.opening import spec_of_part
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.rundir.workdir import hold_here
from jaxtool.study import stage_process
from jaxtool.study.job_pool import JOBS, Job, run_jobs


def training(
    *,
    files: Sequence[str],
    params: Sequence[str],
    workdir: Path,
    seed: int,
    init_from: str | None,
    sandbox_addresses: Sequence[str] = (),
    search_addresses: Sequence[str] = (),
    trackers: Sequence[str] = (),
    is_trained: bool = True,
) -> dict[str, Any]:
    """The description of a job that makes a run.

    Args:
      files: gin files, with `params` as bindings over them.
      trackers: as --log takes them.
      is_trained: False: the policy that training would start from is saved as it is.
    """
    return {
        "kind": "train" if is_trained else "take",
        "files": list(files),
        "params": list(params),
        "workdir": str(workdir),
        "seed": seed,
        "init_from": init_from,
        "sandbox_addresses": list(sandbox_addresses),
        "search_addresses": list(search_addresses),
        "command": sys.orig_argv,  # for the record of the run
        "log": list(trackers),
    }


def trackers_of(specs: Sequence[TrackerSpec], workdir: Path, part: str) -> list[str]:
    """The trackers of --log for one run of many."""
    return [str(spec_of_part(spec, workdir, part)) for spec in specs]


def job_of(
    workdir: Path,
    name: str,
    description: dict[str, Any],
    *,
    is_done: Callable[[], bool],
    kind: str,
    needs: Sequence[str] = (),
) -> Job:
    """The pool's job, as `Job` says; writes its description.

    Args:
      workdir: of all jobs.
    """
    file = workdir / JOBS / f"{name.replace('/', '-')}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps(description, indent=1))
    return Job(
        name=name,
        argument=str(file),
        log=file.with_suffix(".log"),
        needs=tuple(needs),
        is_done=is_done,
        kind=kind,
    )


def run_stages(
    workdir: Path,
    jobs: Callable[[ExitStack], Sequence[Job]],
    places: Sequence[tuple[int, ...]],
    report: Callable[[str], None] = print,
    *,
    goes_on: bool = False,
) -> None:
    """Runs what is not done, and keeps other processes out of the directory meanwhile.

    Args:
      jobs: makes them, once the directory is held; the stack ends what they need.
      places: cores of each process, see `job_pool.split_cores`.
      goes_on: as `run_jobs` says.

    Raises:
      JobFailed: as `run_jobs`.
      ValueError: another process runs a study or a sweep in the directory.
    """
    with ExitStack() as stack:
        hold_here(stack, workdir)
        run_jobs(jobs(stack), places, stage_process.run, report, goes_on=goes_on)
