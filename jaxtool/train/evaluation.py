"""Evaluation: answers to a set of problems, judged, as figures by level."""

import dataclasses
from asyncio import Runner
from collections.abc import Sequence
from typing import Any

from jaxtool.core.types import Problem, Trajectory
from jaxtool.decode.sampling import Sampling
from jaxtool.parallel import hosts
from jaxtool.rewards.answer_checker import AnswerChecker
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.statistics import figures, figures_by_level

GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one policy on one set of problems, with one way of sampling."""

    overall: dict[str, Any]  # the fields of `statistics.Figures`
    levels: dict[str, dict[str, Any]]
    trajectories: tuple[Trajectory, ...]
    is_correct: tuple[bool, ...]

    def as_json(self) -> dict[str, Any]:
        """`accuracy`, `accuracy_stderr`, `tool_calls`, ..., and the same under `levels`."""
        return self.overall | {"levels": self.levels}


def evaluate(
    collector: Collector,
    runner: Runner,
    checker: AnswerChecker,
    problems: Sequence[Problem],
    *,
    samples: int,
    sampling: Sampling,
    seed: int,
    stream: Sequence[str | int],
    version: int,
) -> Evaluation:
    """Answers every problem `samples` times with the parameters that the engine holds.

    Each host answers and judges its share, and gets what the others did.
    """
    own = runner.run(
        collector.collect(
            hosts.share(problems),
            samples=samples,
            sampling=sampling,
            seed=seed,
            stream=stream,
            version=version,
        )
    )
    answers = list(zip(own, judge(checker, own), strict=True))
    groups = [answers[start : start + samples] for start in range(0, len(answers), samples)]
    everything = [answer for group in hosts.together(hosts.exchange(groups)) for answer in group]
    return _evaluation([t for t, _ in everything], [c for _, c in everything])


def judged(checker: AnswerChecker, trajectories: Sequence[Trajectory]) -> Evaluation:
    """The evaluation of answers that are there."""
    return _evaluation(trajectories, judge(checker, trajectories))


def _evaluation(trajectories: Sequence[Trajectory], is_correct: Sequence[bool]) -> Evaluation:
    return Evaluation(
        overall=dataclasses.asdict(figures(trajectories, is_correct)),
        levels={
            level: dataclasses.asdict(part)
            for level, part in figures_by_level(trajectories, is_correct).items()
        },
        trajectories=tuple(trajectories),
        is_correct=tuple(is_correct),
    )


def judge(checker: AnswerChecker, trajectories: Sequence[Trajectory]) -> list[bool]:
    """Whether each final answer equals its reference. Only text of the policy is looked at."""
    return checker.check(
        [t.final_text for t in trajectories], [t.problem.answer for t in trajectories]
    )
