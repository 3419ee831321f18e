"""The queue of a collector: in which order rows begin, one prefill per problem, placement.

Oldest job first; inside a job longest expected first, so that no long row ends alone. A problem's
samples stay together, so that its prefilled prompt is needed for a short time. Not covered: what rows
do once they run.
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.core.types import Problem
from jaxtool.decode.config import EngineCounts
from jaxtool.decode.engine import DecodeEngine, Placement
from jaxtool.decode.prefill import PrefillCall, Prefilled
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.job import Question


class ExpectedLengths:
    """Mean response length of each problem seen so far; a problem not seen has that of all."""

    def __init__(self) -> None:
        self._sums: dict[str, tuple[float, int]] = {}
        self._whole = (0.0, 0)

    def add(self, problem_id: str, tokens: int) -> None:
        total, count = self._sums.get(problem_id, (0.0, 0))
        self._sums[problem_id] = total + tokens, count + 1
        self._whole = self._whole[0] + tokens, self._whole[1] + 1

    def order(self, problems: Sequence[Problem]) -> list[int]:
        """Indices of `problems`, the longest first; as they came where nothing is known."""
        return sorted(range(len(problems)), key=lambda i: (-self._mean(problems[i]), i))

    def _mean(self, problem: Problem) -> float:
        total, count = self._sums.get(problem.problem_id, self._whole)
        return total / max(1, count)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One row that is to be decoded."""

    question: Question
    sample: int
    row_key: np.ndarray  # [2] uint32
    limit: int
    sampling: Sampling


class UsefulSteps:
    """Share of row-steps in which a row ran while more rows wanted to run than there are decode rows.

    Afterwards decode rows are idle because nothing is left for them, which no schedule can help. `stop` says
    that this has begun; later calls change nothing.
    """

    def __init__(self, counts: EngineCounts):
        self._counts = counts
        self._first = self._last = (counts.useful_row_steps, counts.row_steps)
        self._is_stopped = False

    def stop(self) -> None:
        if not self._is_stopped:
            self._last = (self._counts.useful_row_steps, self._counts.row_steps)
            self._is_stopped = True

    @property
    def fraction(self) -> float:
        """Of the windows before `stop`; of all where there were none, and 0 before the first."""
        now = (self._counts.useful_row_steps, self._counts.row_steps)
        last = self._last if self._is_stopped and self._last != self._first else now
        useful, steps = (b - a for a, b in zip(self._first, last, strict=True))
        return useful / steps if steps else 0.0


class Admission:
    """Rows that wait for a cache row, and prompts on their way into the cache."""

    def __init__(self, engine: DecodeEngine):
        self._engine = engine
        self._queue: collections.deque[Entry] = collections.deque()
        self._calls: collections.deque[PrefillCall] = collections.deque()
        self._questions: dict[int, tuple[int, ...]] = {}  # id of a call -> its questions
        self._prefilled: dict[int, Prefilled | None] = {}  # None: on its way
        self._waiting: list[
            tuple[int, Entry]
        ] = []  # cache rows taken by rows whose prompt is on its way

    @property
    def is_queue_empty(self) -> bool:
        return not self._queue

    @property
    def num_without_prompt(self) -> int:
        """Rows with a place in the cache that cannot decode until their prompt has run."""
        return len(self._waiting)

    def add(self, entries: Sequence[Entry], *, is_urgent: bool = False) -> None:
        """Queues `entries`, in the order in which they should begin; urgent ones before all others."""
        if is_urgent:
            self._queue.extendleft(reversed(entries))
        else:
            self._queue.extend(entries)

    def take(self) -> list[tuple[int, Entry]]:
        """Gives free cache rows to the next rows; they are taken but do not run yet."""
        count = min(self._engine.num_free, len(self._queue))
        taken = [(self._engine.take_cache_row(), self._queue.popleft()) for _ in range(count)]
        prompts = {entry.question.number: entry.question.prompt for _, entry in taken}
        fresh = sorted(set(prompts) - set(self._prefilled))
        for call in self._engine.start_prefill([prompts[number] for number in fresh]):
            self._calls.append(call)
            self._questions[id(call)] = tuple(fresh[index] for index in call.indices)
        self._prefilled |= dict.fromkeys(fresh)
        self._waiting += taken
        return taken

    def advance(self) -> None:
        """Runs prompts, then starts the rows that have theirs.

        Where prompts go by chunks only one chunk is run while other rows can decode.
        """
        chunk = self._engine.config.prefill_chunk
        while self._calls:
            call = self._calls[0]
            self._engine.advance_prefill(call)
            if call.is_done:
                self._calls.popleft()
                self._prefilled |= zip(self._questions.pop(id(call)), call.prefilled(), strict=True)
            if chunk and (self._engine.is_any_running or call.is_done):
                break
        self._place()

    def _place(self) -> None:
        placements, waiting = [], []
        for cache_row, entry in self._waiting:
            prompt = self._prefilled[entry.question.number]
            if prompt is None:
                waiting.append((cache_row, entry))
                continue
            placements.append(
                Placement(
                    cache_row=cache_row,
                    prompt=prompt,
                    row_key=entry.row_key,
                    max_length=entry.limit,
                    sampling=entry.sampling,
                )
            )
        self._waiting = waiting
        self._engine.place(placements)
        needed = {entry.question.number for entry in self._queue}
        needed |= {entry.question.number for _, entry in waiting}
        self._prefilled = {i: prompt for i, prompt in self._prefilled.items() if i in needed}
