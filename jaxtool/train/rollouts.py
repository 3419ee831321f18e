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
from jaxtool.parallel import hosts
from jaxtool.rollout.activity import Activity
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.lost import ask_lost_again
from jaxtool.rundir.live_status import DATA, JUDGE, ROLLOUTS
from jaxtool.train.evaluation import judged_by_all_hosts
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

    Each host answers its share of the problems and gets what the others did.
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
        with self.activity.timeline.phase(DATA):
            problems = hosts.share(next(self.batches))
        with self.activity.timeline.phase(ROLLOUTS):
            own = self._groups(problems, train_stream(step, draw), step)
        return self._judged(own)

    def validate(self, problems: Sequence[Problem], version: int, params: Params) -> list[Group]:
        self.worker.engine.load(params)

        def collect(asked: Sequence[Problem]) -> list[Group]:
            samples, sampling = self.config.schedule.eval_samples, validation_sampling(self.config)
            return self._collect(
                self.worker.collector, asked, samples, ("validation",), version, sampling
            )

        return self._judged(ask_lost_again(collect(hosts.share(problems)), collect))

    def dispatch(self, call: Callable[[], _Result]) -> _Result:
        return call()

    def call_tools(self, call: Callable[[], Coroutine[Any, Any, _Result]]) -> _Result:
        return self.worker.runner.run(call())

    def metrics(self, groups: Sequence[Group], step: int) -> dict[str, float]:
        del groups, step
        return {}

    def _judged(self, own: Sequence[Group]) -> list[Group]:
        with self.activity.timeline.phase(JUDGE):
            return judged_by_all_hosts(self.worker.judging, own)

    def _groups(
        self, problems: Sequence[Problem], stream: tuple[str | int, ...], version: int
    ) -> list[Group]:
        """All samples of each problem; the last `tool_free_samples` of them without the tool."""
        total = self.config.schedule.samples * self.config.selection.oversampling
        free = self.config.selection.tool_free_samples
        with_tool = self._collect(self.worker.collector, problems, total - free, stream, version)
        if not free:
            return with_tool
        tool_free = self.tool_free_of(self.worker)
        without = self._collect(tool_free, problems, free, (*stream, "tool_free"), version)
        return [_joined(a, b) for a, b in zip(with_tool, without, strict=True)]

    def _collect(
        self,
        collector: Collector,
        problems: Sequence[Problem],
        samples: int,
        stream: tuple[str | int, ...],
        version: int,
        sampling: Sampling | None = None,
    ) -> list[Group]:
        return self.worker.runner.run(
            collector.collect(
                problems,
                samples=samples,
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
