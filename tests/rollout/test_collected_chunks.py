"""Chunks of questions on their way through a collector: whole, in any order, a few at a time."""

import asyncio
import dataclasses

import pytest
from helpers.ledgers import ledger

from jaxtool.core.stopped import Stopped
from jaxtool.core.types import FinishReason, Group, Problem, Sample
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.chunks import Asking, answer_chunks
from jaxtool.rollout.job import Job
from jaxtool.rundir.stopping import StopNotice


@dataclasses.dataclass
class FakeConfig:
    num_cache_rows: int = 2


@dataclasses.dataclass
class FakeEngine:
    config: FakeConfig = dataclasses.field(default_factory=FakeConfig)


class FakeCollector:
    """Finishes one answer of the newest job at a time; loses the first tries of `loses`."""

    def __init__(self, loses=()):
        self.engine, self.jobs, self.begun, self.is_abandoned = FakeEngine(), [], [], False
        self.stop = StopNotice()
        self._loses = list(loses)
        self.most_open = 0

    @property
    def has_work(self):
        return any(not job.is_done for job in self.jobs)

    def restart_figures(self):
        return None

    def begin(self, problems, *, samples, sampling, seed, stream, is_urgent):
        del sampling, seed, stream
        self.begun.append(([problem.problem_id for problem in problems], is_urgent))
        self.jobs.append(Job(problems, samples))
        return self.jobs[-1]

    async def advance(self, version, wake):
        assert not wake.done()
        del version
        waiting = [job for job in self.jobs if not job.is_done]
        self.most_open = max(self.most_open, sum(j.num_asked - j.num_done for j in waiting))
        job = waiting[-1]
        index, sample = divmod(job.num_done, len(job.numbers[0]))
        problem = job.problems[index]
        is_lost = problem.problem_id in self._loses
        if is_lost:
            self._loses.remove(problem.problem_id)
        reason = FinishReason.INFRASTRUCTURE if is_lost else FinishReason.ANSWER
        job.add(index, ledger("Qp", problem=problem.problem_id, sample=sample, reason=reason))

    async def abandon(self):
        self.is_abandoned = True


CHUNKS = {
    number: [Problem(problem_id=f"{number}{letter}", question="?", answer="1") for letter in "ab"]
    for number in range(4)
}
ASKING = Asking(samples=2, sampling=Sampling(), seed=0, stream=("test",))


def answered(collector, on_window=lambda answers: None):
    found: dict[int, list[Group]] = {}

    async def keep(number, groups):
        found[number] = groups

    asyncio.run(answer_chunks(collector, CHUNKS, ASKING, on_chunk=keep, on_window=on_window))
    return found


def test_every_chunk_is_handed_over_whole_and_few_wait():
    collector = FakeCollector()
    found = answered(collector)
    assert {n: [g.problem.problem_id for g in groups] for n, groups in found.items()} == {
        number: [problem.problem_id for problem in problems] for number, problems in CHUNKS.items()
    }
    assert all(len(group.samples) == 2 for groups in found.values() for group in groups)
    assert collector.most_open <= 2 * 2 + 4  # twice the cache rows, and a chunk
    assert collector.is_abandoned


def test_what_was_lost_is_asked_once_more_and_before_the_rest():
    collector = FakeCollector(loses=["1a"])
    found = answered(collector)
    assert [entry for entry in collector.begun if entry[1]] == [(["1a"], True)]
    assert [g.problem.problem_id for g in found[1]] == ["1a", "1b"]
    assert not any(s.is_masked for s in samples(found))


def test_what_is_lost_twice_stays_lost():
    found = answered(FakeCollector(loses=["2b", "2b", "2b", "2b"]))
    assert [s.trajectory.problem.problem_id for s in samples(found) if s.is_masked] == ["2b"] * 2


def samples(found) -> list[Sample]:
    return [s for groups in found.values() for group in groups for s in group.samples]


def test_progress_counts_answers_of_chunks_that_are_on_their_way():
    told: list[int] = []
    answered(FakeCollector(), told.append)
    assert len(told) == 16
    assert max(told) <= 8
    assert told[-1] == 0


def test_a_busy_collector_is_refused():
    collector = FakeCollector()
    collector.begin([CHUNKS[0][0]], samples=1, sampling=None, seed=0, stream=(), is_urgent=False)
    with pytest.raises(RuntimeError, match="other problems"):
        answered(collector)


def test_a_stop_ends_it_between_two_windows():
    collector, windows = FakeCollector(), []

    def told(answers):
        windows.append(answers)
        if len(windows) == 3:
            collector.stop.ask("a test")

    with pytest.raises(Stopped):
        answered(collector, told)
    assert len(windows) == 3
    assert collector.is_abandoned
