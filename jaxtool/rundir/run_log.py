"""Where a loop writes: metrics and trajectories into the run's own files, TensorBoard and trackers.

The files are the record; TensorBoard and trackers get the same numbers and a bounded sample of the texts.
"""

import contextlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self, SupportsFloat

from jaxtool.config.settings import Setting
from jaxtool.parallel import hosts
from jaxtool.rundir.metrics import MetricsWriter, finite
from jaxtool.rundir.run_start import Launch, RunStart
from jaxtool.rundir.trackers.base import COLUMNS, Row, config_of, rows_of
from jaxtool.rundir.trackers.guarded import GuardedTracker
from jaxtool.rundir.trackers.opening import open_trackers
from jaxtool.rundir.trajectory_log import TrajectoryLog, TrajectoryView
from jaxtool.rundir.workdir import records_dir

LOST = "metrics/tracker_lost_total"


class RunLog:
    """A context manager: leaving the block closes the files and waits a bounded time for the trackers."""

    def __init__(
        self,
        workdir: Path,
        resume_step: int | None,
        settings: Mapping[str, Setting],
        trackers: Sequence[GuardedTracker] = (),
    ):
        """Opens the files.

        Args:
          resume_step: the last step whose rows stay; None empties the files.
          settings: for TensorBoard's table of runs: those that somebody has set, if that is known.
        """
        self._trackers = list(trackers)
        self._stack = contextlib.ExitStack()
        self._metrics = self._stack.enter_context(MetricsWriter(workdir, resume_step))
        self._views = self._stack.enter_context(TrajectoryLog(workdir, resume_step))
        chosen = {path: one for path, one in settings.items() if one.origin} or settings
        self._metrics.write_hparams(config_of(chosen))

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """A row of metrics; see `MetricsWriter.write`."""
        if self._trackers:
            metrics = {**metrics, LOST: sum(tracker.lost for tracker in self._trackers)}
        self._metrics.write(step, metrics)
        values = finite(metrics)
        for tracker in self._trackers:
            tracker.log_metrics(step, values)

    def write_views(self, step: int, views: Sequence[TrajectoryView]) -> None:
        """Trajectories of a step, before its row of metrics."""
        self._views.write(views)
        rows = rows_of(views)
        self._metrics.write_texts(step, [_markdown(row) for row in rows])
        for tracker in self._trackers:
            tracker.log_table(step, rows)

    def sync(self) -> None:
        """Before a checkpoint: a resume from it counts on the rows of its steps."""
        self._metrics.sync()
        self._views.sync()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, raised: type[BaseException] | None, *_: object) -> None:
        self._stack.close()
        for tracker in self._trackers:
            tracker.close(is_finished=raised is None)


def open_log(
    stack: contextlib.ExitStack,
    workdir: Path,
    resume_step: int | None,
    start: RunStart,
    launch: Launch,
) -> RunLog:
    """The log of a start that has begun; hosts but the first write into directories that go with `stack`."""
    specs = launch.trackers if hosts.is_first() else ()
    trackers = open_trackers(specs, workdir, start.settings, is_new=start.is_new)
    return RunLog(records_dir(stack, workdir), resume_step, start.settings, trackers)


def _markdown(row: Row) -> str:
    """A trajectory's row for TensorBoard: what was asked, answered and expected."""
    values = dict(zip(COLUMNS, row, strict=True))
    head = f"`{values['problem_id']}`, reward {values['reward']}, {values['calls']} calls"
    names = ("question", "response", "reference_answer")
    return "\n\n".join([head, *(f"**{name}**\n\n{_fenced(str(values[name]))}" for name in names)])


def _fenced(text: str) -> str:
    """As a block of Markdown that nothing in it ends."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"
