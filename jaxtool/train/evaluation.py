"""Evaluation: answers to a set of problems, judged, as figures by level."""

import dataclasses
from asyncio import Runner
from collections.abc import Sequence
from typing import Any

from jaxtool.core.types import Group, Problem
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.judging import Judging
from jaxtool.parallel import hosts
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.statistics import figures, figures_by_level

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
    judging: Judging,
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
    return evaluation_of(judged_by_all_hosts(judging, own))


def evaluation_of(groups: Sequence[Group]) -> Evaluation:
    """The evaluation of judged groups."""
    return Evaluation(
        overall=dataclasses.asdict(figures(groups)),
        levels={
            level: dataclasses.asdict(part) for level, part in figures_by_level(groups).items()
        },
        groups=tuple(groups),
    )


def judged_by_all_hosts(judging: Judging, own: Sequence[Group]) -> list[Group]:
    """The groups of all hosts, judged, in the order of the problems before `hosts.share`.

    Each host judges its own groups. Then all hosts have all ledgers, so that rewards, n, filters,
    advantages, packing and metrics are those of one process on each of them.
    """
    return hosts.together(hosts.exchange(judging.judged(own)))
