"""Answers to one question while they are written, for a person who looks on: `experiments.sample`.

All samples decode side by side; one is followed at a time, in order, so that each is read as a whole. Not covered: sets of
questions and figures (`evaluation`).
"""

import dataclasses
import itertools
from asyncio import Runner
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np

from jaxtool.core.types import Group, Origin, Problem, Sample
from jaxtool.data.tokenizer import Tokenizer
from jaxtool.decode.sampling import Sampling
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.job import Job
from jaxtool.rundir.progress import progress_of
from jaxtool.train.devices import make_shardings
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import RolloutWorker, load_text, open_worker

_WINDOW = 4  # steps between two looks at what was written

# Gets the number of the sample, and new tokens of it with who wrote them.
OnTokens = Callable[[int, Sequence[int], Origin], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """One question as a task, for configurations that want one."""

    problem: Problem

    def problems(self, split: str, count: int | None, seed: int) -> list[Problem]:
        """The question, whatever is asked for."""
        del split, count, seed
        return [self.problem]


def ask(
    config: RlConfig,
    problem: Problem,
    *,
    samples: int,
    sampling: Sampling,
    seed: int,
    begin: Callable[[RolloutWorker], OnTokens],
    is_judged: bool,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
) -> Group:
    """The answers of `config.policy`, each shown as it grows; judged where asked.

    Args:
      config: whose rows hold the prompt and the response (`plain_config`).
      begin: gets the open worker, and gives what is called with new tokens.
      is_judged: False: the problem's answer is not known.

    Raises:
      FileNotFoundError, OSError, ValueError: weights, tokenizer, tools or prompt are not as they should be.
    """
    engine = dataclasses.replace(config.engine, window_steps=_WINDOW)
    config = dataclasses.replace(config, engine=engine)
    text = load_text(config)
    sharding, _ = make_shardings(config, config.policy.model_config())
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        worker, params = open_worker(
            *(stack, runner, config, config.policy, sharding, seed, sandbox_addresses),
            text=text,
            search_addresses=search_addresses,
        )
        worker.engine.load(params)
        with progress_of("compile decoder") as report:
            worker.compile(report, sampling)
        follow = Follower(begin(worker), samples)
        answers = _answers(worker.collector, problem, samples, sampling, seed, follow)
        (group,) = runner.run(answers)
        return worker.judging.judged([group])[0] if is_judged else group


async def _answers(
    collector: Collector,
    problem: Problem,
    samples: int,
    sampling: Sampling,
    seed: int,
    follow: "Follower",
) -> list[Group]:
    job = collector.begin(
        [problem], samples=samples, sampling=sampling, seed=seed, stream=("sample",)
    )
    try:
        while not job.is_done:
            await collector.advance(0)
            follow.look(job, collector)
    finally:  # Ctrl-C too: no row, task or session stays behind
        await collector.abandon()
    return job.groups()


class Follower:
    """Tells what is new of one sample after the other; a sample that is ready early waits for its turn."""

    def __init__(self, on_tokens: OnTokens, samples: int) -> None:
        self._on_tokens, self._samples = on_tokens, samples
        self._sample = self._told = 0

    def look(self, job: Job, collector: Collector) -> None:
        """Passes on what was written since the last look."""
        live = {row.sample: row for row in collector.live if row.job is job}
        while self._sample < self._samples:
            done, row = job.trajectory(0, self._sample), live.get(self._sample)
            if done is not None:
                self._tell(done.ids.tolist(), done.origins.tolist())
                self._sample, self._told = self._sample + 1, 0
                continue
            if row is not None:
                self._tell(row.ids, row.origins)
            return

    def _tell(self, ids: Sequence[int], origins: Sequence[int]) -> None:
        new, by = ids[self._told :], np.asarray(origins[self._told :], int)
        cuts = [0, *(np.flatnonzero(np.diff(by)) + 1).tolist(), len(new)]
        for first, last in itertools.pairwise(cuts):
            if first < last:
                self._on_tokens(self._sample, new[first:last], Origin(int(by[first])))
        self._told = len(ids)


def sample_row(sample: Sample, tokenizer: Tokenizer) -> dict[str, object]:
    """A sample as JSON; its keys are in the docstring of `experiments.sample`."""
    trajectory, verdict = sample.trajectory, sample.verdict
    control = tokenizer.control_tokens
    return {
        "response": trajectory.response_text,
        "finish_reason": str(trajectory.finish_reason),
        "tokens": {
            origin.name.lower(): int(np.sum(trajectory.origins == origin))
            for origin in (Origin.PROMPT, Origin.POLICY, Origin.TOOL)
        },
        "control_tokens": [control[i] for i in trajectory.ids.tolist() if i in control],
        "calls": [
            {
                "tool": call.tool,
                "arguments": dict(call.arguments),
                "status": str(call.result.status),
                "stdout": call.result.stdout,
                "stderr": call.result.stderr,
                "wall_ms": call.result.wall_ms,
            }
            for call in trajectory.tool_calls
        ],
        "verdict": None
        if verdict is None
        else {"is_correct": verdict.is_correct, "answer": verdict.answer, "how": verdict.how},
    }
