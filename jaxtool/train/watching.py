"""Watches a run from a thread of its own: a line now and then within a step, and `live.json` for `experiments.top`.

It reads counts and clocks and writes nothing that a step reads, so it changes no number. Of several hosts the first one
prints and writes; its answers are its own share. Not covered: rows of metrics (`jaxtool.rundir.run_log`).
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

from jaxtool.parallel import hosts
from jaxtool.rollout.activity import Activity, Snapshot
from jaxtool.rundir.health import Health, Kind, WatchConfig
from jaxtool.rundir.live_status import (
    LIVE,
    ROLLOUTS,
    UPDATE,
    VALIDATION,
    LiveStatus,
    left_in_rollouts,
    left_in_run,
    status_line,
    write_live,
)
from jaxtool.rundir.run_start import Launch
from jaxtool.rundir.timeline import Timeline
from jaxtool.rundir.trace import KEPT_SPANS, TRACE, write_trace
from jaxtool.train.run_state import Run

STEP = "step"
_REST_S = 5.0  # between two states that are written at the ends of steps
_TRACE_REST_S = 600.0  # between two traces: as much a kill may lose


class RunWatch:
    """A context manager: its thread ends with the block.

    Args:
      steps: of the run.
      start: its first step in this process.
      note: prints a line.
      health: reads the rows; None for a run without rollouts.
    """

    def __init__(
        self,
        workdir: Path,
        config: WatchConfig,
        activity: Activity,
        *,
        steps: int,
        start: int,
        note: Callable[[str], None],
        health: Health | None = None,
    ):
        self._traced_s = time.monotonic()
        self._workdir, self._every_s, self._activity = workdir, config.line_every_s, activity
        self._steps, self._note, self._health = steps, note, health
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watch", daemon=True)
        self._step, self._made = start, 0
        self._row: Mapping[str, float] = {}  # of the last step
        self._first_s: float | None = None  # when the first step began
        self._began_s = self._ended_s = self._said_s = self._wrote_s = time.monotonic()
        self._before = self._last = activity.snapshot()
        self._failed: set[str] = set()  # files

    def __enter__(self) -> Self:
        self._write()
        if hosts.is_first() and self._every_s:
            self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._ends.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._write()
        self._trace()

    @contextlib.contextmanager
    def step(self, step: int) -> Iterator[None]:
        """A step and what follows it: validation, checkpoint."""
        self._activity.forget()
        self._activity.timeline.restart()
        self._before = self._activity.snapshot()
        self._step, self._began_s = step, time.monotonic()
        if self._first_s is None:
            self._first_s = self._began_s
        with self._activity.timeline.phase(STEP):
            yield
        self._made, self._step, self._ended_s = self._made + 1, step + 1, time.monotonic()
        if time.monotonic() - self._wrote_s >= _REST_S:
            self._write()
        if time.monotonic() - self._traced_s >= _TRACE_REST_S:
            self._trace()

    def read(self, row: Mapping[str, float]) -> dict[str, float]:
        """Takes a step's row of metrics; returns what its health adds to it, and prints warnings."""
        self._row = row
        if self._health is None:
            return {}
        metrics, lines = self._health.observe(self._step, row)
        if hosts.is_first():
            for line in lines:
                print(line, file=sys.stderr, flush=True)
        return metrics

    def status(self) -> LiveStatus:
        """What goes on now. Tokens a second are those since the call before."""
        (phase, since_s), now = self._activity.timeline.present, self._activity.snapshot()
        phase = "" if phase == STEP else phase
        done, asked = self._answers(now, phase)
        before = self._before.of("train", self._step)[0] if phase == ROLLOUTS else 0
        begun_s = self._began_s if phase == ROLLOUTS else since_s
        left_s = self._left_step_s(phase, done, asked, done - before, now.at_s - begun_s)
        span_s = now.at_s - self._last.at_s
        tokens, self._last = now.tokens - self._last.tokens, now
        mean_s = (self._ended_s - (self._first_s or 0.0)) / self._made if self._made else None
        return LiveStatus(
            written_at=time.time(),
            every_s=self._every_s,
            step=self._step,
            steps=self._steps,
            phase=phase,
            phase_s=now.at_s - since_s,
            step_s=now.at_s - self._began_s,
            answers_done=done,
            answers_asked=asked,
            calls=now.calls - self._before.calls,
            waiting=now.waiting,
            tokens_per_s=tokens / span_s if span_s > 0 else 0.0,
            left_step_s=left_s,
            left_run_s=left_in_run(
                steps_left=max(0, self._steps - self._step - 1), step_s=mean_s, left_step_s=left_s
            ),
            warnings={str(k): v for k, v in self._health.warnings.items()} if self._health else {},
        )

    def _answers(self, now: Snapshot, phase: str) -> tuple[int, int]:
        if phase == VALIDATION:
            return now.of(VALIDATION)
        return now.of("train", self._step)

    def _left_step_s(
        self, phase: str, done: int, asked: int, came: int, elapsed_s: float
    ) -> float | None:
        update_s = self._row.get("timing/update_s")
        if phase == ROLLOUTS:
            after_s = (update_s or 0.0) + self._row.get("timing/judge_s", 0.0)
            return left_in_rollouts(
                done=done, asked=asked, came=came, phase_s=elapsed_s, after_s=after_s
            )
        if phase == VALIDATION:
            return left_in_rollouts(done=done, asked=asked, came=came, phase_s=elapsed_s, after_s=0)
        if phase == UPDATE and update_s is not None:
            return max(0.0, update_s - elapsed_s)
        return None

    def _watch(self) -> None:
        while not self._ends.wait(max(0.01, self._due_s() - time.monotonic())):
            now = time.monotonic()
            if now < self._due_s():
                continue
            status = self.status()
            if (
                now - max(self._began_s, self._said_s) >= self._every_s
                and self._first_s is not None
            ):
                self._note(status_line(status))
                self._said_s = now
            self._write(status)

    def _due_s(self) -> float:
        """When the next line or the next state is due."""
        return min(max(self._began_s, self._said_s), self._wrote_s) + self._every_s

    def _write(self, status: LiveStatus | None = None) -> None:
        """Replaces live.json on the first host; a disk that fails is said once and stops nothing."""
        self._wrote_s = time.monotonic()
        if hosts.is_first():
            self._try(LIVE, lambda: write_live(self._workdir, status or self.status()))

    def _trace(self) -> None:
        """Replaces the trace on the first host, if the time line is kept."""
        self._traced_s = time.monotonic()
        if hosts.is_first() and self._activity.timeline.is_kept:
            spans, lost = self._activity.timeline.kept()
            path, title = self._workdir / TRACE, self._workdir.name
            self._try(TRACE, lambda: write_trace(path, spans, lost=lost, title=title))

    def _try(self, name: str, write: Callable[[], None]) -> None:
        """What is for watching alone ends no run."""
        try:
            write()
        except OSError as error:
            if name not in self._failed:
                self._failed.add(name)
                print(f"warning: {name} was not written: {error}", file=sys.stderr, flush=True)


def new_activity(launch: Launch) -> Activity:
    """Of a run; its time line keeps spans where a trace is wanted."""
    return Activity(Timeline(keeps=KEPT_SPANS if launch.traces else 0))


def open_watch(run: Run, workdir: Path, start: int, note: Callable[[str], None]) -> RunWatch:
    """Of an RL run that is set to its checkpoint; every host must call it."""
    config = run.config
    leaves_out: set[Kind] = set()
    if run.worker.collector.renderer.tool is None or not config.rollout.max_tool_calls:
        leaves_out |= {"calls_died_out", "failed_calls"}
    if config.critic is not None or config.schedule.samples == 1:
        leaves_out.add("equal_groups")  # rewards are not compared within groups
    if config.schedule.max_staleness:
        leaves_out.add("mismatch")  # the learner has moved on by then
    late = run.worker.total_counts().late_programs
    return RunWatch(
        workdir,
        config.watch,
        run.worker.collector.activity,
        steps=config.schedule.steps,
        start=start,
        note=note,
        health=Health(config.watch.limits, frozenset(leaves_out), late),
    )
