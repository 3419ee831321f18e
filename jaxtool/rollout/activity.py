"""What goes on in a process's collectors, counted for those who watch from another thread.

Nothing here changes an answer. Not covered: what is shown of it (`jaxtool.train.watching`).
"""

import dataclasses
import threading
import time
from collections.abc import Mapping, Sequence

from jaxtool.rollout.live_sample import LiveSample
from jaxtool.rundir.timeline import Timeline

Stream = tuple[str | int, ...]
DECODER = "decoder"  # track of what the decoder does
PREFILL, WINDOW, TOOL_WAIT = "prefill", "window", "tool wait"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Snapshot:
    """Counts at one moment, since the process began."""

    at_s: float  # on the monotonic clock
    answers: Mapping[Stream, tuple[int, int]]  # by random stream: come back, asked for
    calls: int  # that have come back
    waiting: int  # rows whose call has not
    tokens: int  # sampled

    def of(self, *stream: str | int) -> tuple[int, int]:
        """Answers that have come back and those asked for, of all streams that begin so."""
        found = [both for name, both in self.answers.items() if name[: len(stream)] == stream]
        return sum(done for done, _ in found), sum(asked for _, asked in found)


class Activity:
    """Shared by the collectors of one engine; they write, anybody reads."""

    def __init__(self, timeline: Timeline | None = None):
        self.timeline = timeline or Timeline()
        self._lock = threading.Lock()
        self._answers: dict[Stream, tuple[int, int]] = {}
        self._calls = self._waiting = self._tokens = 0

    def ask(self, stream: Sequence[str | int], answers: int, there: int = 0) -> None:
        """`answers` are asked for, of which `there` are already there: an earlier process finished them."""
        with self._lock:
            done, asked = self._answers.get(tuple(stream), (0, 0))
            self._answers[tuple(stream)] = done + there, asked + answers

    def answer(self, sample: LiveSample) -> None:
        """A sample has ended, its times as well."""
        with self._lock:
            done, asked = self._answers.get(sample.job.stream, (0, 0))
            self._answers[sample.job.stream] = done + 1, asked
        if self.timeline.is_kept:
            track = f"row {sample.cache_row}"
            name = f"{sample.problem.problem_id}/{sample.sample}"
            self.timeline.add(track, name, sample.left_queue_s, sample.since_s)
            for kind, start_s, stop_s in sample.spans:
                self.timeline.add(track, kind, start_s, stop_s)

    def call(self) -> None:
        """A row waits for its call."""
        with self._lock:
            self._waiting += 1

    def called(self) -> None:
        """Its call has come back."""
        with self._lock:
            self._waiting -= 1
            self._calls += 1

    def took(self, what: str, started_s: float) -> float:
        """The decoder's seconds since `started_s`, for PREFILL, WINDOW or TOOL_WAIT."""
        stopped_s = time.monotonic()
        self.timeline.add(DECODER, what, started_s, stopped_s)
        return stopped_s - started_s

    def sample(self, tokens: int) -> None:
        with self._lock:
            self._tokens += tokens

    def abandon(self) -> None:
        """Nobody waits any more; what was asked for and is not there will not come."""
        with self._lock:
            self._waiting = 0
            self._answers = {n: both for n, both in self._answers.items() if both[0] == both[1]}

    def forget(self) -> None:
        """Streams that are answered."""
        with self._lock:
            self._answers = {
                name: (done, asked) for name, (done, asked) in self._answers.items() if done < asked
            }

    def snapshot(self) -> Snapshot:
        with self._lock:
            return Snapshot(
                at_s=time.monotonic(),
                answers=dict(self._answers),
                calls=self._calls,
                waiting=self._waiting,
                tokens=self._tokens,
            )
