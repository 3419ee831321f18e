"""Where a step's rollouts come from: one interface, on-policy here, overlapped in `overlapped_rollouts`.

The loop does not ask which of the two it has, nor how many hosts there are. Not covered: scores and
what of the rollouts is learned (`rollout_batch`).
"""

import dataclasses
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from typing import Any, Protocol, TypeVar

from jaxtool.core.types import Group, Problem
from jaxtool.data.batches import ProblemBatches
from jaxtool.decode.sampling import Sampling
from jaxtool.model.transformer import Params
from jaxtool.rollout.activity import Activity
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.lost import ask_lost_again
from jaxtool.rundir.live_status import DATA, JUDGE, ROLLOUTS
from jaxtool.train.host_shares import judged_by_all_hosts, own_part
from jaxtool.train.rl_config import RlConfig, validation_sampling
from jaxtool.train.rollout_worker import RolloutWorker

_Result = TypeVar("_Result")


class Rollouts(Protocol):
    """Judged groups for steps and validations. All methods are called by the training thread."""

    @property
    def queued(self) -> list[list[Problem]]:
        """Batches that are drawn and not learned, the oldest first: part of a checkpoint."""
        ...

    def begin_step(self, step: int, params: Params) -> None:
        """Gives the engine the parameters of a step; returns when `params` are no longer needed."""
        ...

    def draw(self, step: int, draw: int) -> list[Group]:
        """Judged groups of one batch of problems, all samples of each.

        Args:
          draw: 0 for the step's own batch, 1 and more for what refills it.
        """
        ...

    def validate(self, problems: Sequence[Problem], version: int, params: Params) -> list[Group]:
        """`Schedule.eval_samples` judged samples of each problem by one version of the policy.

        What is lost is asked again.
        """
        ...

    def dispatch(self, call: Callable[[], _Result]) -> _Result:
        """Makes a call that uses the learner's devices, in the thread that may."""
        ...

    def unload(self) -> None:
        """Frees what the decoder holds of the devices, until the next `begin_step` or `validate` of newer parameters."""
        ...

    def call_tools(self, call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        """Runs a coroutine where tool calls run, and waits for it."""
        ...

    def metrics(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        """What only this way of rolling out knows of a step."""
        ...


class OpenRollouts(Protocol):
    """Makes the rollouts of a run."""

    def __call__(
        self,
        stack: ExitStack,
        config: RlConfig,
        worker: RolloutWorker,
        batches: ProblemBatches,
        seed: int,
        queued: Sequence[Sequence[Problem]],
        /,
    ) -> Rollouts:
        """The rollouts, which `stack` ends.

        Args:
          batches: of the problems to train on; the rollouts draw from it.
          queued: batches that were drawn before the checkpoint and not learned; they come first.
        """
        ...


def train_stream(step: int, draw: int) -> tuple[str | int, ...]:
    """Name of a draw's random stream; the first draw has that of a run without refilling."""
    return ("train", step, draw) if draw else ("train", step)


def tool_free_collector(worker: RolloutWorker) -> Collector:
    """The same engine and prompts; the first call ends the trajectory, unanswered."""
    collector = worker.collector
    tool_free = Collector(
        engine=collector.engine,
        tokenizer=collector.tokenizer,
        renderer=collector.renderer,
        tools=collector.tools,
        config=dataclasses.replace(collector.config, max_tool_calls=0, at_tool_limit="finish"),
        activity=collector.activity,
    )
    tool_free.stop, tool_free.journal = collector.stop, collector.journal
    return tool_free


@dataclasses.dataclass(frozen=True, kw_only=True)
class OnPolicyRollouts:
    """Rollouts and updates take turns: the parameters of a step sample all of its tokens.

    Each host answers its part of the samples (`host_shares`) and gets what the others did.
    """

    config: RlConfig
    worker: RolloutWorker
    batches: ProblemBatches
    seed: int
    activity: Activity = dataclasses.field(default_factory=Activity)  # of the worker's collector
    tool_free_of: Callable[[RolloutWorker], Collector] = tool_free_collector

    @property
    def queued(self) -> list[list[Problem]]:
        return []

    def begin_step(self, step: int, params: Params) -> None:
        del step
        self.worker.engine.load(params)

    def draw(self, step: int, draw: int) -> list[Group]:
        """All samples of each problem; the last `tool_free_samples` of them without the tool."""
        with self.activity.timeline.phase(DATA):
            problems = next(self.batches)
        total = self.config.schedule.samples * self.config.selection.oversampling
        free, stream = self.config.selection.tool_free_samples, train_stream(step, draw)
        sets = [(self.worker.collector, total - free, stream)]
        if free:
            sets.append((self.tool_free_of(self.worker), free, (*stream, "tool_free")))
        with self.activity.timeline.phase(ROLLOUTS):
            own = [
                (samples, self._collect(collector, problems, samples, name, step))
                for collector, samples, name in sets
            ]
        with_tool, *without = self._judged(problems, own)
        return (
            [_joined(a, b) for a, b in zip(with_tool, *without, strict=True)] if free else with_tool
        )

    def validate(self, problems: Sequence[Problem], version: int, params: Params) -> list[Group]:
        self.worker.engine.load(params)
        samples, sampling = self.config.schedule.eval_samples, validation_sampling(self.config)
        part = own_part(len(problems), samples, self.config.schedule.share_by)

        def collect(asked: Sequence[Problem], numbers: Sequence[Sequence[int]]) -> list[Group]:
            return self._answers(
                self.worker.collector, asked, numbers, ("validation",), version, sampling
            )

        own = ask_lost_again(collect(part.of(problems), part.numbers), collect)
        return self._judged(problems, [(samples, own)])[0]

    def dispatch(self, call: Callable[[], _Result]) -> _Result:
        return call()

    def unload(self) -> None:
        self.worker.engine.unload()

    def call_tools(self, call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        return self.worker.runner.run(call())

    def metrics(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        del groups, step
        return {}

    def _judged(
        self, problems: Sequence[Problem], asked: Sequence[tuple[int, Sequence[Group]]]
    ) -> list[list[Group]]:
        with self.activity.timeline.phase(JUDGE):
            share_by = self.config.schedule.share_by
            return judged_by_all_hosts(self.worker.judging, problems, asked, share_by)

    def _collect(
        self,
        collector: Collector,
        problems: Sequence[Problem],
        samples: int,
        stream: tuple[str | int, ...],
        version: int,
    ) -> list[Group]:
        """This host's part of the samples of the problems."""
        part = own_part(len(problems), samples, self.config.schedule.share_by)
        return self._answers(collector, part.of(problems), part.numbers, stream, version)

    def _answers(
        self,
        collector: Collector,
        problems: Sequence[Problem],
        numbers: Sequence[Sequence[int]],
        stream: tuple[str | int, ...],
        version: int,
        sampling: Sampling | None = None,
    ) -> list[Group]:
        return self.worker.runner.run(
            collector.collect(
                problems,
                samples=numbers,
                sampling=sampling or self.config.sampling,
                seed=self.seed,
                stream=stream,
                version=version,
            )
        )


def _joined(first: Group, second: Group) -> Group:
    """One group of the samples of both; those of the second are numbered after those of the first."""
    count = len(first.samples)
    renumbered = tuple(
        dataclasses.replace(
            sample,
            trajectory=dataclasses.replace(
                sample.trajectory, sample=sample.trajectory.sample + count
            ),
        )
        for sample in second.samples
    )
    return dataclasses.replace(first, samples=first.samples + renumbered)
