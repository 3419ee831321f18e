"""The queue of a collector: in which order rows begin, one prefill per problem, placement.

Oldest job first; inside a job longest expected first, so that no long row ends alone. A problem's
samples stay together, so that its prefilled prompt is needed for a short time. Not covered: what rows
do once they run.
"""

import collections
from collections.abc import Sequence

from jaxtool.core.types import Problem
from jaxtool.decode.config import EngineCounts
from jaxtool.decode.engine import DecodeEngine
from jaxtool.decode.pieces import Placement
from jaxtool.decode.prefill import PrefillCall, Prefilled
from jaxtool.rollout.live_sample import LiveSample


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
        return sorted(range(len(problems)), key=lambda i: (-self.mean(problems[i]), i))

    def mean(self, problem: Problem) -> float:
        """Tokens of a response; 0 where nothing is known."""
        total, count = self._sums.get(problem.problem_id, self._whole)
        return total / max(1, count)


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
    """Samples that wait for a cache row, and prompts on their way into the cache.

    Example, with two cache rows, three samples of problem A and one of B:
      queue A0 A1 A2 B0   take: A0 gets row 0, A1 row 1; prompt A is started, once
                          advance: prompt A runs, is copied to rows 0 and 1, and both decode;
                          the prefilled prompt A is kept, because A2 waits
      A0 ends             take: A2 gets row 0; prompt A is there and is not run again
                          advance: A is copied to row 0; nobody waits for it now, so it is dropped
      A1 ends             take: B0 gets row 1; prompt B is started
    """

    def __init__(self, engine: DecodeEngine, expected: ExpectedLengths | None = None):
        self._engine = engine
        self._expected = expected or ExpectedLengths()
        self._queue: collections.deque[LiveSample] = collections.deque()
        self._calls: collections.deque[PrefillCall] = collections.deque()
        self._prompts: dict[int, tuple[int, ...]] = {}  # id of a call -> numbers of its prompts
        self._prefilled: dict[int, Prefilled | None] = {}  # by prompt number; None: on its way
        self._waiting: list[LiveSample] = []  # have a cache row; their prompt is on its way

    @property
    def is_queue_empty(self) -> bool:
        return not self._queue

    @property
    def num_without_prompt(self) -> int:
        """Rows with a place in the cache that cannot decode until their prompt has run."""
        return len(self._waiting)

    def add(self, samples: Sequence[LiveSample], *, is_urgent: bool = False) -> None:
        """Queues `samples` in the order in which they should begin; urgent ones before all others."""
        if is_urgent:
            self._queue.extendleft(reversed(samples))
        else:
            self._queue.extend(samples)

    def take(self) -> list[LiveSample]:
        """Gives free cache rows to the next samples; they hold them but do not run yet."""
        # 1) As many samples as there is room for, the front of the queue first.
        taken: list[LiveSample] = []
        while self._queue and self._engine.has_room(len(self._queue[0].prompt)):
            sample = self._queue.popleft()
            expected = self._expected.mean(sample.problem)
            sample.begin(self._engine.take_cache_row(len(sample.prompt), expected))
            taken.append(sample)
        # 2) Start each prompt once: not for every sample, and not where it ran for an earlier one.
        prompts = {sample.prompt_number: sample.prompt for sample in taken}
        fresh = sorted(set(prompts) - set(self._prefilled))
        # 3) The engine sorts prompts by length into calls; remember which prompts each call holds.
        for call in self._engine.start_prefill([prompts[number] for number in fresh]):
            self._calls.append(call)
            self._prompts[id(call)] = tuple(fresh[index] for index in call.indices)
        self._prefilled |= dict.fromkeys(fresh)
        # 4) Until their prompt has run, the samples wait.
        self._waiting += taken
        return taken

    def advance(self) -> None:
        """Runs prompts, then starts the samples that have theirs.

        Where prompts go by chunks only one chunk is run while other rows can decode.
        """
        # 1) Run the oldest call, a chunk at a time where prompts go by chunks.
        chunk = self._engine.config.prefill_chunk
        while self._calls:
            call = self._calls[0]
            self._engine.advance_prefill(call)
            if call.is_done:
                self._calls.popleft()
                self._prefilled |= zip(self._prompts.pop(id(call)), call.prefilled(), strict=True)
            # 2) Decoding rows must not wait for long prompts: their window comes after each chunk.
            if chunk and (self._engine.is_any_running or call.is_done):
                break
        self._place()

    def _place(self) -> None:
        # 1) Samples whose prompt has run leave; the others go on waiting.
        placements: list[Placement] = []
        waiting: list[LiveSample] = []
        for sample in self._waiting:
            prompt = self._prefilled[sample.prompt_number]
            if prompt is None:
                waiting.append(sample)
            else:
                placements.append(_placement(sample, prompt))
        self._waiting = waiting
        # 2) Copy the prompts into the cache rows: these rows run in the next window.
        self._engine.place(placements)
        # 3) Keep only prompts that a sample still needs: each holds memory of the device.
        needed = {sample.prompt_number for sample in (*self._queue, *waiting)}
        self._prefilled = {i: prompt for i, prompt in self._prefilled.items() if i in needed}


def _placement(sample: LiveSample, prompt: Prefilled) -> Placement:
    """What the engine, which knows no text, must know of a sample."""
    return Placement(
        cache_row=sample.cache_row,
        prompt=prompt,
        row_key=sample.row_key,
        max_length=sample.max_length,
        sampling=sample.sampling,
    )
