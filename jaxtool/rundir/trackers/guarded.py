"""A tracker that can neither end nor slow a run: a thread of its own behind a queue with an end.

What fails is tried again, what is lost is counted, and the first trouble is said in one line. A step that an
earlier start has given to the tracker is not given again: the step is written down before it is sent, so a kill
in between loses a row and doubles none.
"""

import collections
import dataclasses
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from jaxtool.core.files import one_line
from jaxtool.rundir import provenance
from jaxtool.rundir.trackers.base import Memory, Row, Tracker
from jaxtool.rundir.trackers.spec import TrackerSpec


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How long a tracker is waited for. None of it is time of the loop, but for `close_s` at the very end."""

    pauses_s: tuple[float, ...] = (1.0, 5.0, 30.0)  # before a row is tried again
    room: int = 1000  # rows and tables that wait; the oldest are lost for newer ones
    close_s: float = 60.0  # after the last step, for what still waits


_AT_THE_END = sys.maxsize


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Event:
    step: int  # _AT_THE_END: of none, behind them all
    metrics: Mapping[str, float] | None = None
    rows: Sequence[Row] = ()
    page: Path | None = None


class GuardedTracker:
    """Takes metrics, tables and pages from the loop and returns at once."""

    def __init__(
        self,
        spec: TrackerSpec,
        open_tracker: Callable[[], Tracker],
        memory: Memory,
        patience: Patience | None = None,
    ):
        """Starts the thread, which opens the tracker when the first row is there."""
        self._spec, self._open, self._memory = spec, open_tracker, memory
        self._patience = patience or Patience()
        self._given_before = memory.last_step(spec)
        self._events: collections.deque[_Event] = collections.deque()
        self._changed = threading.Condition()
        self._is_closing = self._is_finished = self._has_spoken = False
        self._lost = 0
        self._thread = threading.Thread(target=self._work, name=f"tracker {spec}", daemon=True)
        self._thread.start()

    @property
    def lost(self) -> int:
        """Rows, tables and pages that did not reach the tracker."""
        return self._lost

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._put(_Event(step=step, metrics=dict(values)))

    def log_table(self, step: int, rows: Sequence[Row]) -> None:
        self._put(_Event(step=step, rows=list(rows)))

    def log_page(self, page: Path) -> None:
        """An HTML file of the run, at its end; a later start gives it again."""
        self._put(_Event(step=_AT_THE_END, page=page))

    def close(self, *, is_finished: bool) -> None:
        """Waits for what is on its way, `Patience.close_s` at the most; what then waits is lost."""
        with self._changed:
            self._is_closing, self._is_finished = True, is_finished
            self._changed.notify_all()
        self._thread.join(self._patience.close_s)
        with self._changed:
            self._lost += len(self._events)
            self._events.clear()
        if self._thread.is_alive():
            self._lose()  # what it has in its hands
            self._say(f"did not end within {self._patience.close_s:g} s and is left alone")
        if self._lost:
            print(
                f"warning: --log {self._spec}: {self._lost} rows, tables or pages were lost",
                file=sys.stderr,
            )

    def _put(self, event: _Event) -> None:
        if event.step <= self._given_before:
            return
        with self._changed:
            if len(self._events) >= self._patience.room:
                self._events.popleft()
                self._lost += 1
            self._events.append(event)
            self._changed.notify_all()

    def _work(self) -> None:
        """The thread. Everything that a tracker raises ends here."""
        tracker: Tracker | None = None
        while (event := self._next()) is not None:
            for pause_s in (0.0, *self._patience.pauses_s):
                self._pause(pause_s)
                try:
                    tracker = tracker or self._open()
                    self._give(tracker, event)
                    break
                except (Exception, SystemExit) as error:
                    self._say(f"{type(error).__name__}: {one_line(error, 200)}")
            else:
                self._lose()
        if tracker is not None:
            try:
                tracker.close(self._is_finished)
            except (Exception, SystemExit) as error:
                self._say(f"{type(error).__name__}: {one_line(error, 200)}")

    def _give(self, tracker: Tracker, event: _Event) -> None:
        if event.page is not None:
            tracker.log_page(event.page)
            return
        if event.metrics is None:
            tracker.log_table(event.step, event.rows)
            return
        self._memory.keep(self._spec, last_step=event.step)
        tracker.log_metrics(event.step, event.metrics)

    def _next(self) -> _Event | None:
        """The oldest event, None once the loop is done and nothing waits."""
        with self._changed:
            self._changed.wait_for(lambda: self._events or self._is_closing)
            return self._events.popleft() if self._events else None

    def _pause(self, seconds: float) -> None:
        """Waits, and not at all once the loop is done."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_closing, timeout=seconds)

    def _lose(self) -> None:
        with self._changed:
            self._lost += 1

    def _say(self, trouble: str) -> None:
        """One line, once."""
        if self._has_spoken:
            return
        self._has_spoken = True
        print(
            f"warning: --log {self._spec}: {provenance.without_secrets(trouble)}. The run goes on; what is "
            "lost is counted in metrics/tracker_lost_total",
            file=sys.stderr,
            flush=True,
        )
