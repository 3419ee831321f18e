"""The rows of a job: those that an earlier process of the run finished are read back, the others are queued."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxtool.core import rng
from jaxtool.core.types import Origin
from jaxtool.decode.config import EngineCounts
from jaxtool.decode.sampling import Sampling
from jaxtool.renderers.renderer import Renderer
from jaxtool.rollout.admission import ExpectedLengths
from jaxtool.rollout.job import Job
from jaxtool.rollout.live_sample import LiveSample
from jaxtool.rundir.rollout_journal import ReadBack, RolloutJournal
from jaxtool.rundir.stopping import StopNotice
from jaxtool.tools.menu import Menu

_INVALID = "invalid_tools"


def take_read_back(
    job: Job, prompts: Sequence[Sequence[int]], journal: RolloutJournal | None
) -> list[ReadBack]:
    """Gives a job the answers that the journal has of it, and returns them.

    Args:
      prompts: [P] ids of each problem of the job.
    """
    if journal is None or not journal.num_known:
        return []
    taken: list[ReadBack] = []
    for index, (problem, prompt) in enumerate(zip(job.problems, prompts, strict=True)):
        for sample in job.numbers[index]:
            found = journal.find(job.stream, problem, sample, prompt)
            if found is not None:
                job.add(index, found.trajectory)
                taken.append(found)
    return taken


def count_read_back(
    there: Sequence[ReadBack], counts: EngineCounts, tools: Menu, expected: ExpectedLengths
) -> None:
    """As if they had been sampled here: what a run has sampled and called is that of an unbroken one."""
    for one in there:
        trajectory = one.trajectory
        tokens = int(np.sum(trajectory.origins != Origin.PROMPT))
        expected.add(trajectory.problem.problem_id, tokens)
        counts.sampled_tokens += trajectory.num_policy_tokens
        tools.count_read_back(trajectory.tool_calls, one.extra.get(_INVALID, ()))


def rows_to_draw(
    job: Job,
    prompts: Sequence[Sequence[int]],
    numbers: Sequence[int],
    order: Sequence[int],
    *,
    max_response_tokens: int,
    sampling: Sampling,
    seed: int,
    renderer: Renderer,
    tools: Menu,
) -> list[LiveSample]:
    """The rows of a job that are not there, each with the random key of its name.

    Args:
      prompts: [P] ids of each problem of the job.
      numbers: of the prompts.
      order: indices of the problems, those that begin first in front.
    """
    return [
        LiveSample(
            job=job,
            index=i,
            prompt_number=numbers[i],
            problem=job.problems[i],
            sample=sample,
            prompt=prompts[i],
            max_length=len(prompts[i]) + max_response_tokens,
            row_key=rng.row_key(seed, *job.stream, job.problems[i].problem_id, sample),
            sampling=sampling,
            renderer=renderer,
            sessions=tools.sessions(
                job.problems[i], seed, *job.stream, job.problems[i].problem_id, sample
            ),
        )
        for i in order
        for sample in job.numbers[i]
        if job.trajectory(i, sample) is None
    ]


def extra_of(row: LiveSample) -> dict[str, Any]:
    """What a journal keeps of a row beside its trajectory, for the figures of its step."""
    return {_INVALID: row.invalid_tools}


@contextlib.contextmanager
def woken_by(stop: StopNotice) -> Iterator[asyncio.Future[None]]:
    """A future of the running loop that is done once the run is told to stop."""
    loop = asyncio.get_running_loop()
    wake: asyncio.Future[None] = loop.create_future()

    def set_result() -> None:
        if not wake.done():
            wake.set_result(None)

    with stop.noticed(lambda: loop.call_soon_threadsafe(set_result)):
        yield wake
