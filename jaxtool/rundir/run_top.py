"""A run as it is now, from the files in its directory: state, step, what goes on, last metrics, warnings, time left.

Reads only, without jax, also while the run writes; works on runs that have ended in any way. Whether a run lives is said by
its lock, so by the kernel. Not covered: several runs (`run_listing`).
"""

import dataclasses
import datetime
import time
from pathlib import Path
from typing import Any

from jaxtool.core.durations import format_duration
from jaxtool.core.locks import holder
from jaxtool.rundir.bottleneck import bottleneck, bottleneck_text
from jaxtool.rundir.live_status import LiveStatus, read_live, status_line
from jaxtool.rundir.run_listing import RunView, read_run
from jaxtool.rundir.run_record import LOCK

_SILENT_AFTER = 3  # intervals without a new state


@dataclasses.dataclass(frozen=True, kw_only=True)
class TopView:
    """One look at a run."""

    run: RunView
    process: str | None  # that holds the lock
    status: LiveStatus | None  # of its last start; None: it has written none
    seen_s: float | None  # since the status was written

    @property
    def is_running(self) -> bool:
        return self.process is not None

    @property
    def is_silent(self) -> bool:
        """Whether a process that lives has missed several states: it hangs, is stopped, or its disk is."""
        if not self.is_running or self.status is None or self.seen_s is None:
            return False
        return bool(self.status.every_s) and self.seen_s > _SILENT_AFTER * self.status.every_s

    @property
    def is_of_this_step(self) -> bool:
        """Whether no step has ended since the state was written, as short ones do."""
        return self.status is not None and self.status.step >= self.run.step

    @property
    def step(self) -> int:
        """Steps made; the state in the file may be some steps old."""
        return max(self.run.step, self.status.step if self.status is not None else 0)

    @property
    def ending(self) -> str:
        """How it ended, for one that does not run."""
        start = self.run.start
        if self.run.state == "finished":
            return "finished"
        if start is not None and start.status in ("failed", "failed checks"):
            return f"{self.run.state}: {start.error}"
        if start is not None and start.status == "stopped":
            return "stopped: it was interrupted; the same command goes on"
        return (
            "stopped: its process is gone without a word, as after a kill; the same command goes on"
        )


def read_top(workdir: Path) -> TopView:
    """Looks at a run directory.

    Raises:
      FileNotFoundError: no run there.
      ValueError: its record cannot be read, naming the file.
    """
    process = holder(workdir / LOCK)
    run, status = read_run(workdir), read_live(workdir)
    began = run.start.started if run.start is not None else ""
    if status is not None and began:
        # One that an earlier start has left says nothing of this one.
        since = datetime.datetime.fromisoformat(began).timestamp()
        status = status if status.written_at >= since else None
    seen_s = None if status is None else max(0.0, time.time() - status.written_at)
    return TopView(run=run, process=process, status=status, seen_s=seen_s)


def lines(view: TopView) -> list[str]:
    """What a person reads, a line each; the first is the state."""
    run, status = view.run, view.status
    state = f"running ({view.process})" if view.is_running else view.ending
    found = [
        f"{run.path}  {run.recipe}".rstrip(),
        state,
        f"steps made: {view.step} of {run.steps or '?'}",
    ]
    if view.is_running and status is None:
        found.append("no step yet: it reads weights and compiles")
    elif view.is_running and status is not None:
        if view.is_of_this_step:
            found.append(status_line(status))
        left = "?" if status.left_run_s is None else format_duration(status.left_run_s)
        found.append(f"left of the run: {left}  (seen {format_duration(view.seen_s or 0)} ago)")
    elif status is not None and run.state != "finished":
        now = f": {status_line(status)}" if view.is_of_this_step else ""
        found.append(f"last seen {format_duration(view.seen_s or 0)} ago{now}")
    if view.is_silent:
        found.append(
            f"warning: no sign of life for {format_duration(view.seen_s or 0)}, although its process is there: "
            "it hangs, it was suspended, or its disk does not answer"
        )
    figures = [f"{name} {value:.4g}" for name, value in run.metrics.items()]
    waits_for = bottleneck_text(run.last_row)
    figures += [f"bottleneck {waits_for}"] if waits_for else []
    found.append(f"last row: {'  '.join(figures)}" if figures else "last row: none yet")
    warnings = status.warnings if status is not None else {}
    return found + [f"warning: {text}" for text in warnings.values()]


def as_json(view: TopView) -> dict[str, Any]:
    """The record of `experiments.top --json`."""
    status, found = view.status, bottleneck(view.run.last_row)
    live = view.is_running and status is not None
    return {
        "path": str(view.run.path),
        "recipe": view.run.recipe,
        "state": view.run.state,
        "ending": None if view.is_running else view.ending,
        "process": view.process,
        "is_silent": view.is_silent,
        "step": view.step,
        "steps": view.run.steps,
        "live": None if status is None else dataclasses.asdict(status),
        "seen_s": view.seen_s,
        "left_step_s": status.left_step_s if live and status is not None else None,
        "left_run_s": status.left_run_s if live and status is not None else None,
        "metrics": view.run.metrics,
        "bottleneck": None if found is None else {"part": found[0], "share": found[1]},
        "warnings": dict(status.warnings) if status is not None else {},
        "last": dict(view.run.last_row),
    }
