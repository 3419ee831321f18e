"""One set of problems on its way through a collector: what is asked, and what has come back."""

import collections
from collections.abc import Sequence
from concurrent.futures import Future

from jaxtool.core.types import Group, Problem, Sample, SampleTimes, Trajectory


class Job:
    """Rollouts of each of `problems`. Several jobs may hold the same problem.

    Args:
      samples: how many of each problem, or for each problem the numbers of its samples.
      stream: name of their random stream.
    """

    def __init__(
        self,
        problems: Sequence[Problem],
        samples: int | Sequence[Sequence[int]],
        stream: tuple[str | int, ...] = (),
    ):
        self.problems = tuple(problems)
        self.numbers = sample_numbers(len(self.problems), samples)
        self.stream = stream
        # Fulfilled in the collector's thread; other threads may wait for it.
        self.finished: Future[list[Group]] = Future()
        self._done: dict[tuple[int, int], Sample] = {}
        self._left = collections.Counter(dict(enumerate(map(len, self.numbers))))
        self._settle()

    @property
    def is_done(self) -> bool:
        return len(self._done) == self.num_asked

    @property
    def num_asked(self) -> int:
        return sum(map(len, self.numbers))

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
                samples=tuple(self._done[i, s] for s in self.numbers[i]),
            )
            for i, problem in enumerate(self.problems)
        ]

    def _settle(self) -> None:
        if self.is_done:
            self.finished.set_result(self.groups())


def sample_numbers(
    problems: int, samples: int | Sequence[Sequence[int]]
) -> tuple[tuple[int, ...], ...]:
    """For each problem the numbers of its samples: `samples` itself, or 0, 1, ... of that many.

    Raises:
      ValueError: there are numbers for more or fewer problems.
    """
    if isinstance(samples, int):
        return (tuple(range(samples)),) * problems
    if len(samples) != problems:
        raise ValueError(f"numbers of samples for {len(samples)} problems, not for {problems}")
    return tuple(map(tuple, samples))
