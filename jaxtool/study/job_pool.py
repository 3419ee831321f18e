"""Runs jobs in processes side by side, each on cores of its own, parents before children.

Knows nothing of what a job does. A process runs one job after another, so that imports and programs
that are compiled already serve the next one too. A job that is done is skipped; one that fails ends its
process and is tried again in a fresh one, because a busy machine can fail the sandbox's first checks.
In the end it ends the pool, whose next start resumes, or the pool goes on with the jobs that do not need it. Processes
that this pool started end with it, also on Ctrl-C.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

from jaxtool.rundir.stopping import ends_on_sigterm

JOBS = (
    "jobs"  # folder of a directory of runs that holds the descriptions of its jobs and their logs
)
_POLL_S = 0.2
_ATTEMPTS = 3
_STOP_TIMEOUT_S = 30.0  # more than a run takes that is told to stop
_LOG_TAIL_CHARS = 1500
_WELL = "without an error"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """One call of what `run_jobs` runs."""

    name: str
    argument: str
    log: Path  # standard output and error while it runs
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
    run: Callable[[str], object],
    report: Callable[[str], None] = print,
    *,
    goes_on: bool = False,
) -> None:
    """Runs what is not done, one at each place, earlier jobs first but for the rule of `Job.kind`.

    Args:
      places: the cores of each place; its process is bound to them where the system can.
      run: gets `Job.argument`, in a place's process: a function that can be imported there.
      report: gets one line for each job that ended.
      goes_on: after a job that failed the others are run, but for those that need it, before the error is raised.

    Raises:
      ValueError: if a job needs one that is not in `jobs`.
      JobFailed: naming the job, with the end of its log; the processes are stopped first.
    """
    _check_needs(jobs)
    done = {job.name for job in jobs if job.is_done()}
    waiting = [job for job in jobs if job.name not in done]
    if done:
        report(f"{len(done)} of {len(jobs)} stages are done already")
    failures: Counter[str] = Counter()
    given_up: dict[str, str] = {}  # with what is said of it
    workers = [_Worker(cores, run) for cores in places]
    running: dict[_Worker, tuple[Job, float]] = {}
    with ends_on_sigterm(), _stopping(workers):
        while waiting or running:
            for worker in workers:
                running_kinds = {job.kind for job, _ in running.values()}
                if worker not in running and (job := _next_job(waiting, done, running_kinds)):
                    waiting.remove(job)
                    worker.begin(job)
                    running[worker] = job, time.monotonic()
            for worker, (job, started) in list(running.items()):
                how = worker.how_it_ended()
                if how is None:
                    continue
                del running[worker]
                if how == _WELL and job.is_done():
                    done.add(job.name)
                    seconds = time.monotonic() - started
                    report(f"[{len(done)}/{len(jobs)}] {job.name}: {seconds:.0f} s")
                    continue
                failures[job.name] += 1
                if failures[job.name] == _ATTEMPTS:
                    given_up[job.name] = _give_up(job, how, goes_on, report)
                    waiting = _without_those_that_need(waiting, set(given_up))
                    continue
                waiting.insert(0, job)
                report(f"{job.name} ended {how}; once more")
            time.sleep(_POLL_S)
    _raise_failures(given_up, len(jobs))


@contextlib.contextmanager
def _stopping(workers: Sequence["_Worker"]) -> Iterator[None]:
    """Their processes end with the block: what runs is told, keeps what it has, and has some time for it."""
    try:
        yield
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.stop()


def _give_up(job: Job, how: str, goes_on: bool, report: Callable[[str], None]) -> str:
    """What is said of a job that failed once too often; raised where the pool ends with it."""
    text = f"{job.name} ended {how}; {_tail(job)}"
    if not goes_on:
        raise JobFailed(text)
    report(f"{job.name} ended {how}, {_ATTEMPTS} times: given up, see {job.log}")
    return text


def _raise_failures(given_up: Mapping[str, str], count: int) -> None:
    if given_up:
        first = next(iter(given_up.values()))
        raise JobFailed(f"{len(given_up)} of {count} jobs failed; the first: {first}")


def _without_those_that_need(waiting: Sequence[Job], given_up: set[str]) -> list[Job]:
    """Jobs that need none of `given_up`, also not through others."""
    lost = set(given_up)
    while more := {job.name for job in waiting if lost & set(job.needs)} - lost:
        lost |= more
    return [job for job in waiting if job.name not in lost]


def _next_job(waiting: Sequence[Job], done: Set[str], running_kinds: Set[str]) -> Job | None:
    """The first job that can start, of a kind that is not in `running_kinds` if there is one."""
    ready = [job for job in waiting if done >= set(job.needs)]
    return next(
        (job for job in ready if job.kind not in running_kinds), ready[0] if ready else None
    )


def _check_needs(jobs: Sequence[Job]) -> None:
    names = {job.name for job in jobs}
    for job in jobs:
        if missing := sorted(set(job.needs) - names):
            raise ValueError(f"job {job.name} needs {', '.join(missing)}, which nothing makes")


class _Worker:
    """A place and its process, which runs jobs one after another. A failed job ends the process."""

    def __init__(self, cores: tuple[int, ...], run: Callable[[str], object]):
        self._cores = cores
        self._run = run
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def begin(self, job: Job) -> None:
        if self._pipe is None:
            context = multiprocessing.get_context("spawn")  # a fork would share our threads' locks
            self._pipe, theirs = context.Pipe()
            self._process = context.Process(target=_serve, args=(theirs, self._run))
            with _bound_to(self._cores):
                self._process.start()
            theirs.close()
        job.log.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(BrokenPipeError):  # it has ended: `how_it_ended` says so
            self._pipe.send((job.argument, str(job.log)))

    def how_it_ended(self) -> str | None:
        """None while the job runs; `_WELL`; or how the process ended, which is cleared away."""
        assert self._pipe is not None
        assert self._process is not None
        if self._pipe.poll():
            with contextlib.suppress(EOFError, ConnectionResetError):
                return self._pipe.recv()
        elif self._process.is_alive():  # a child of the job may hold the pipe's other end
            return None
        self._process.join()
        code = self._process.exitcode
        self.stop()
        return f"with code {code}"

    def terminate(self) -> None:
        """Its checkpoints are written as it goes."""
        if self._process is not None:
            self._process.terminate()

    def stop(self) -> None:
        """Waits for the end of the process, after `terminate`, and kills it if that does not come."""
        if self._process is not None and self._pipe is not None:
            self._process.join(_STOP_TIMEOUT_S)
            if self._process.is_alive():
                self._process.kill()
            self._process.join()
            self._pipe.close()
        self._process = self._pipe = None


@contextlib.contextmanager
def _bound_to(cores: tuple[int, ...]) -> Iterator[None]:
    """A process inherits the cores of the one that starts it; XLA makes as many threads as it may use."""
    if not hasattr(os, "sched_getaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _serve(pool: Connection, run: Callable[[str], object]) -> None:
    """In a worker: runs what it is told to. An error ends the process; the log has its traceback."""
    os.setsid()  # Ctrl-C reaches it through the pool alone, once
    threading.Thread(target=_end_with_pool, daemon=True).start()
    while True:
        try:
            argument, log = pool.recv()
        except EOFError:
            return
        with open(log, "ab") as file:
            for stream in (1, 2):
                os.dup2(file.fileno(), stream)  # compiled code and children write there too
        run(argument)
        sys.stdout.flush()
        sys.stderr.flush()
        pool.send(_WELL)


def _end_with_pool() -> None:
    """Ends this process when the pool's process is gone, however that ended."""
    pool = multiprocessing.parent_process()
    assert pool is not None
    pool.join()
    os._exit(1)


def _tail(job: Job) -> str:
    text = job.log.read_text("utf-8", "replace").strip()
    return f"the end of {job.log}:\n{text[-_LOG_TAIL_CHARS:]}"
