"""What a training run keeps for its next start: when a checkpoint is due, finished answers, what a stop loses.

Not covered: the notice itself (`jaxtool.rundir.stopping`), rows of answers (`jaxtool.rundir.rollout_journal`).
"""

import json
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxtool.config.settings import Setting, is_inside
from jaxtool.core.files import write_text
from jaxtool.core.types import Origin
from jaxtool.parallel import hosts
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.live_sample import LiveSample
from jaxtool.rundir.rollout_journal import FOLDER, Fingerprint, RolloutJournal, digest
from jaxtool.rundir.run_listing import checkpoints_of
from jaxtool.rundir.run_start import RunStart
from jaxtool.rundir.stopping import StopNotice
from jaxtool.train.resume_rules import LENGTH, MAY_CHANGE

_LOST = "lost.json"
_FLUSH_S = 1.5  # where the process is about to be ended


class CheckpointTimes:
    """Says after which steps a checkpoint is due: every so many steps, every so many minutes, and after the last.

    Args:
      every: steps.
      minutes: since the last one, looked at after each step; 0: the clock does not matter.
      steps: of the run.
    """

    def __init__(self, every: int, minutes: float, steps: int):
        self._every, self._minutes, self._steps = every, minutes, steps
        self._since_s = time.monotonic()

    def is_due(self, step: int) -> bool:
        """After `step` steps; every host must call it, and the first one's clock counts."""
        due = step % self._every == 0 or step == self._steps
        if self._minutes and not due:
            due = hosts.agree(lambda: time.monotonic() - self._since_s >= 60 * self._minutes)
        if due:
            self._since_s = time.monotonic()
        return due


class KeptAnswers:
    """The journal of an RL run in this process: opened for a step, cut at checkpoints, gone with the finished run."""

    def __init__(self, workdir: Path, collector: Collector, journal: RolloutJournal | None):
        self._workdir, self._collector, self._journal = workdir, collector, journal
        self._drawn_again_s = hosts.agree(lambda: _take_lost(workdir))

    def metrics(self) -> dict[str, float]:
        """Of a step: answers that were read back, on all hosts; and what was lost, in the first row of a start."""
        if self._journal is None:
            return {}
        drawn_again_s, self._drawn_again_s = self._drawn_again_s, 0.0
        read = sum(hosts.exchange(self._journal.take_read_back()))
        metrics = {"tokens/read_back_answers_count": float(read)} if read else {}
        return metrics | ({"timing/drawn_again_s": drawn_again_s} if drawn_again_s else {})

    def end_step(self) -> None:
        """Rows of steps before the newest whole checkpoint are needless."""
        if self._journal is not None and hosts.is_first():
            self._journal.forget_before(max(checkpoints_of(self._workdir), default=0))

    def finish(self, steps: int) -> None:
        """The run has ended, and its last checkpoint is on the disk or on its way."""
        if self._journal is not None and hosts.is_first():
            self._journal.forget_before(steps)

    def say_lost(self) -> None:
        """Where the run stops within a step: what its next start draws again, in one line and in a file."""
        rows = () if self._journal is None else self._live_rows()
        if not rows:
            return
        now = time.monotonic()
        tokens = sum(int(np.sum(np.asarray(row.origins) == Origin.POLICY)) for row in rows)
        seconds = max(now - row.left_queue_s for row in rows)
        print(
            f"{len(rows)} answers were still growing: their {tokens} tokens, {seconds / 60:.1f} min of this "
            "step, are drawn again",
            flush=True,
        )
        if hosts.is_first():
            with suppress(OSError):
                write_text(self._workdir / FOLDER / _LOST, json.dumps({"seconds": seconds}))

    def _live_rows(self) -> tuple[LiveSample, ...]:
        """From another thread than the one that changes them."""
        with suppress(RuntimeError):  # one came or went while they were read
            return self._collector.live
        return ()


def open_kept(
    stack: ExitStack,
    workdir: Path,
    collector: Collector,
    stop: StopNotice,
    this_start: RunStart,
    start: int,
    *,
    keeps: bool,
) -> KeptAnswers:
    """What the collector will ask and tell of finished answers; `stack` ends it.

    Args:
      start: the step that the run resumes from.
      keeps: `Schedule.keep_answers`.
    """
    journal = None
    collector.stop = stop
    if keeps:
        journal = stack.enter_context(
            RolloutJournal(
                workdir,
                process=jax.process_index(),
                start=start,
                fingerprint=fingerprint_of(this_start.settings),
            )
        )
        collector.journal = journal
        stop.before_the_end(lambda: this_start.end("stopped", None))
        stop.before_the_end(lambda: journal.flush(_FLUSH_S))
    kept = KeptAnswers(workdir, collector, journal)
    stack.enter_context(stop.noticed(kept.say_lost))
    if journal is not None and hosts.is_first():
        if journal.num_known:
            print(
                f"{journal.num_known} finished answers of steps {start} and later are read back; only the "
                "others are drawn",
                flush=True,
            )
        if journal.num_foreign:
            print(
                f"{journal.num_foreign} finished answers are not read back: they were sampled under other settings",
                flush=True,
            )
    return kept


def fingerprint_of(settings: Mapping[str, Setting]) -> Fingerprint:
    """Of the settings of a start, by path."""

    def is_free(name: str) -> bool:
        return name in MAY_CHANGE or f"{name.partition('.')[0]}.*" in MAY_CHANGE

    free = [path for path, one in settings.items() if is_free(one.name)]
    run = {path: one.value for path, one in settings.items() if not is_inside(path, free)}
    if run.get("init_from", "None") != "None":
        run["init_from"] = str(Path(run["init_from"]).resolve())
    rates = {path: one.value for path, one in settings.items() if one.name in LENGTH}
    return Fingerprint(run=digest(run), rates=digest(rates))


def _take_lost(workdir: Path) -> float:
    """Seconds that the last process lost within a step, 0 where it said nothing; said once."""
    path = workdir / FOLDER / _LOST
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        path.unlink()
        return float(values["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return 0.0
