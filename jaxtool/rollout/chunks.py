"""Many questions answered in one go, handed over in chunks as soon as all answers of a chunk are there.

The decoder never waits for the last answer of a chunk: the next chunks are queued behind it. So memory holds a few
chunks, whatever the number of questions. Not covered: judging and files, which are the caller's.
"""

import dataclasses
from collections.abc import Awaitable, Callable, Mapping, Sequence

from jaxtool.core.types import Group, Problem
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.job import Job
from jaxtool.rollout.job_rows import woken_by
from jaxtool.rollout.lost import lost_problems, with_second_try


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How every question is asked."""

    samples: int
    sampling: Sampling
    seed: int
    stream: Sequence[str | int]
    version: int = 0


@dataclasses.dataclass(kw_only=True)
class _Chunk:
    """A chunk on its way."""

    job: Job
    first: list[Group] | None = None  # the first try, of which something was lost


async def answer_chunks(
    collector: Collector,
    chunks: Mapping[int, Sequence[Problem]],
    asking: Asking,
    *,
    on_chunk: Callable[[int, list[Group]], Awaitable[None]],
    on_window: Callable[[int], None] = lambda answers: None,
) -> None:
    """Answers the questions of all chunks. What the infrastructure lost is asked for once more.

    Args:
      chunks: questions by number of the chunk; they begin in this order, and may end in another.
      on_chunk: gets each chunk's number and its groups, in the order of its questions, not judged yet.
      on_window: told after each window how many answers of chunks that are not handed over have come back.
    """
    if collector.has_work:
        raise RuntimeError("this collector is answering other problems")
    collector.restart_figures()
    waiting = dict(chunks)
    working: dict[int, _Chunk] = {}
    # As many rows wait as decode, so that one that ends is followed at once.
    wanted = 2 * collector.engine.config.num_cache_rows

    def begin(problems: Sequence[Problem], *, is_urgent: bool = False) -> Job:
        return collector.begin(
            problems,
            samples=asking.samples,
            sampling=asking.sampling,
            seed=asking.seed,
            stream=asking.stream,
            is_urgent=is_urgent,
        )

    try:
        with woken_by(collector.stop) as wake:
            while waiting or working:
                collector.stop.check()
                while waiting and sum(_left(chunk.job) for chunk in working.values()) < wanted:
                    number = next(iter(waiting))
                    working[number] = _Chunk(job=begin(waiting.pop(number)))
                await collector.advance(asking.version, wake)
                for number in [n for n, chunk in working.items() if chunk.job.is_done]:
                    chunk = working[number]
                    groups = chunk.job.groups()
                    if chunk.first is not None:
                        groups = with_second_try(chunk.first, groups)
                    elif lost := lost_problems(groups):
                        working[number] = _Chunk(job=begin(lost, is_urgent=True), first=groups)
                        continue
                    del working[number]
                    await on_chunk(number, groups)
                on_window(sum(chunk.job.num_done for chunk in working.values()))
    finally:
        await collector.abandon()


def _left(job: Job) -> int:
    return job.num_asked - job.num_done
