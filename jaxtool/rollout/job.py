"""One set of problems on its way through a collector: what is asked, and what has come back."""

import collections
from collections.abc import Sequence
from concurrent.futures import Future

from jaxtool.core.types import Group, Problem, Sample, SampleTimes, Trajectory


class Job:
    """`samples` rollouts of each of `problems`. Several jobs may hold the same problem.

    Args:
      stream: name of their random stream.
    """

    def __init__(
        self, problems: Sequence[Problem], samples: int, stream: tuple[str | int, ...] = ()
    ):
        self.problems = tuple(problems)
        self.samples = samples
        self.stream = stream
        # Fulfilled in the collector's thread; other threads may wait for it.
        self.finished: Future[list[Group]] = Future()
        self._done: dict[tuple[int, int], Sample] = {}
        self._left = collections.Counter(dict.fromkeys(range(len(self.problems)), samples))
        self._settle()

    @property
    def is_done(self) -> bool:
        return len(self._done) == len(self.problems) * self.samples

    @property
    def num_done(self) -> int:
        """Answers that have come back."""
        return len(self._done)

    def add(self, index: int, trajectory: Trajectory, times: SampleTimes | None = None) -> bool:
        """Takes one answer to problem number `index`; says whether its group is complete."""
        key = index, trajectory.sample
        if key in self._done:
            raise ValueError(f"problem {index} of this job has two samples {trajectory.sample}")
        self._done[key] = Sample(trajectory=trajectory, times=times)
        self._left[index] -= 1
        self._settle()
        return not self._left[index]

    def trajectory(self, index: int, sample: int) -> Trajectory | None:
        """The answer that has come back; None: it has not yet."""
        done = self._done.get((index, sample))
        return None if done is None else done.trajectory

    def groups(self) -> list[Group]:
        """One of each problem, in their order, with the samples in theirs."""
        return [
            Group(
                problem=problem,
                samples=tuple(self._done[i, s] for s in range(self.samples)),
            )
            for i, problem in enumerate(self.problems)
        ]

    def _settle(self) -> None:
        if self.is_done:
            self.finished.set_result(self.groups())
