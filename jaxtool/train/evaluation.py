"""Evaluation: answers to a set of problems, judged, as figures by level."""

import dataclasses
from asyncio import Runner
from collections.abc import Sequence
from typing import Any

from jaxtool.core.types import Group, Problem, samples_of, trajectories_of, with_samples
from jaxtool.decode.sampling import Sampling
from jaxtool.parallel import hosts
from jaxtool.rewards.answer_checker import AnswerChecker
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.statistics import figures, figures_by_level
from jaxtool.train.skipped_updates import check_sampled

GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one policy on one set of problems, with one way of sampling."""

    overall: dict[str, Any]  # the fields of `statistics.Figures`
    levels: dict[str, dict[str, Any]]
    groups: tuple[Group, ...]  # judged

    def as_json(self) -> dict[str, Any]:
        """`accuracy`, `accuracy_stderr`, `tool_calls`, ..., and the same under `levels`."""
        return self.overall | {"levels": self.levels}

    def metrics(self) -> dict[str, float]:
        """Accuracy and calls under the names of a run's validations."""
        metrics = {
            "validation/accuracy_fraction": self.overall["accuracy"],
            "validation/calls_per_answer": self.overall["tool_calls"],
        }
        for level, part in self.levels.items():
            metrics[f"validation/accuracy_fraction/{level}"] = part["accuracy"]
            metrics[f"validation/calls_per_answer/{level}"] = part["tool_calls"]
        return metrics


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
    return evaluation_of(judged_by_all_hosts(checker, own))


def evaluation_of(groups: Sequence[Group]) -> Evaluation:
    """The evaluation of judged groups.

    Raises:
      RuntimeError: log-probs of the decoder are not finite.
    """
    check_sampled(groups, "evaluation")
    return Evaluation(
        overall=dataclasses.asdict(figures(groups)),
        levels={
            level: dataclasses.asdict(part) for level, part in figures_by_level(groups).items()
        },
        groups=tuple(groups),
    )


def judged_by_all_hosts(checker: AnswerChecker, own: Sequence[Group]) -> list[Group]:
    """The groups of all hosts, judged, in the order of the problems before `hosts.share`.

    Each host judges its own groups. Then all hosts have all ledgers, so that rewards, n, filters,
    advantages, packing and metrics are those of one process on each of them.
    """
    return hosts.together(hosts.exchange(judge(checker, own)))


def judge(checker: AnswerChecker, groups: Sequence[Group]) -> list[Group]:
    """The groups with a verdict for each sample. Only text of the policy is looked at."""
    trajectories = trajectories_of(groups)
    verdicts = checker.check(
        [t.final_text for t in trajectories], [t.problem.answer for t in trajectories]
    )
    return with_samples(
        groups,
        (
            dataclasses.replace(sample, is_correct=is_correct)
            for sample, is_correct in zip(samples_of(groups), verdicts, strict=True)
        ),
    )
