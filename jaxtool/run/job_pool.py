"""Runs jobs as processes side by side, each on cores of its own, parents before children.

Knows nothing of what a job does. A job that is done is skipped; one that fails is tried again,
because a busy machine can fail the sandbox's first checks, and in the end it ends the pool, whose next
start goes on. Processes that this pool started end with it, also on Ctrl-C.
"""

import dataclasses
import itertools
import os
import subprocess
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

_POLL_S = 0.2
_ATTEMPTS = 3
_STOP_TIMEOUT_S = 20.0
_LOG_TAIL_CHARS = 1500


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One process to run."""

    name: str
    command: tuple[str, ...]
    log: Path  # standard output and error of the process
    needs: tuple[str, ...] = ()  # names of jobs that must be done before
    is_done: Callable[[], bool]
    # Jobs of a kind compile the same programs: a job of another kind goes first while one of them runs,
    # and the next of the kind finds the programs in the compilation cache.
    kind: str = ""


class JobFailed(RuntimeError):
    """A job ended with an error."""


def usable_cores() -> list[int]:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def split_cores(cores: Sequence[int], jobs: int) -> list[tuple[int, ...]]:
    """The cores in `jobs` parts that differ by one core at most.

    Raises:
      ValueError: if there are fewer cores than jobs, or no job.
    """
    if not 1 <= jobs <= len(cores):
        raise ValueError(f"{jobs=} must be in 1..{len(cores)}, the cores that this process may use")
    bounds = [len(cores) * i // jobs for i in range(jobs + 1)]
    return [tuple(cores[begin:end]) for begin, end in itertools.pairwise(bounds)]


def run_jobs(
    jobs: Sequence[Job],
    places: Sequence[tuple[int, ...]],
    report: Callable[[str], None] = print,
) -> None:
    """Runs what is not done, one at each place, earlier jobs first but for the rule of `Job.kind`.

    Args:
      places: the cores of each place; processes are bound to them where the system can.
      report: gets one line for each job that ended.

    Raises:
      ValueError: if a job needs one that is not in `jobs`.
      JobFailed: naming the job, with the end of its log; the other processes are stopped first.
    """
    _check_needs(jobs)
    done = {job.name for job in jobs if job.is_done()}
    waiting = [job for job in jobs if job.name not in done]
    if done:
        report(f"{len(done)} of {len(jobs)} stages are done already")
    failures: dict[str, int] = {}
    running: dict[int, tuple[Job, subprocess.Popen[bytes], float]] = {}
    try:
        while waiting or running:
            for place, cores in enumerate(places):
                ready = [job for job in waiting if done.issuperset(job.needs)]
                if place not in running and ready:
                    beside = {job.kind for job, _, _ in running.values()}
                    chosen = next((job for job in ready if job.kind not in beside), ready[0])
                    waiting.remove(chosen)
                    running[place] = chosen, _start(chosen, cores), time.monotonic()
            for place, (job, process, started) in list(running.items()):
                if process.poll() is None:
                    continue
                del running[place]
                _close(process)
                if process.returncode or not job.is_done():
                    failures[job.name] = failures.get(job.name, 0) + 1
                    if failures[job.name] < _ATTEMPTS:
                        waiting.insert(0, job)
                        report(f"{job.name} ended with code {process.returncode}; once more")
                        continue
                    raise JobFailed(
                        f"{job.name} ended with code {process.returncode}; {_tail(job)}"
                    )
                done.add(job.name)
                seconds = time.monotonic() - started
                report(f"[{len(done)}/{len(jobs)}] {job.name}: {seconds:.0f} s")
            time.sleep(_POLL_S)
    finally:
        _stop([process for _, process, _ in running.values()])


def _check_needs(jobs: Sequence[Job]) -> None:
    names = {job.name for job in jobs}
    for job in jobs:
        if missing := sorted(set(job.needs) - names):
            raise ValueError(f"job {job.name} needs {', '.join(missing)}, which nothing makes")


def _start(job: Job, cores: tuple[int, ...]) -> subprocess.Popen[bytes]:
    job.log.parent.mkdir(parents=True, exist_ok=True)
    # A process inherits the cores of the one that starts it; XLA makes as many threads as it may use.
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    if before is not None:
        os.sched_setaffinity(0, cores)
    try:
        with open(job.log, "ab") as log:
            # A session of its own: Ctrl-C reaches it through `_stop` alone, once.
            return subprocess.Popen(
                job.command,
                stdin=subprocess.PIPE,  # it ends when this process does: see `end_with_parent`
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    finally:
        if before is not None:
            os.sched_setaffinity(0, before)


def end_with_parent() -> None:
    """In a job: ends the process when the pool's process is gone, however that ended."""

    def watch() -> None:
        # Not sys.stdin: its lock would still be held when the interpreter ends.
        while os.read(0, 1024):
            pass
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _stop(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Ends them, and kills what does not end; their checkpoints are written as they go."""
    for process in processes:
        process.terminate()  # a shell's background process and its children ignore SIGINT
    for process in processes:
        try:
            process.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _close(process)


def _close(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()


def _tail(job: Job) -> str:
    text = job.log.read_text("utf-8", "replace").strip()
    return f"the end of {job.log}:\n{text[-_LOG_TAIL_CHARS:]}"
