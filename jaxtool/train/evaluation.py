"""Evaluation: answers to a set of problems, judged, as figures by level.

Answers that the infrastructure lost are asked for once more. What is still lost is counted beside the
figures. Above a share there are no figures: those that are lost are those that call, so the others would
say too little of the calls.
"""

import dataclasses
from asyncio import Runner
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.core.types import Group, Problem
from jaxtool.decode.sampling import Sampling
from jaxtool.judges.judging import Judging
from jaxtool.rollout.answer_equations import pass_at, usual_ks
from jaxtool.rollout.collector import Collector
from jaxtool.rollout.judged_answers import JudgedAnswer, by_problem, kept, of_groups
from jaxtool.rollout.lost import ask_lost_again, lost_to_text
from jaxtool.rollout.statistics import MAX_LOST_FRACTION, counts_of, figures_of
from jaxtool.train.host_shares import judged_by_all_hosts, own_part
from jaxtool.train.skipped_updates import check_sampled

GREEDY = Sampling(temperature=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Figures of one policy on one set of problems, with one way of sampling."""

    overall: dict[str, Any]  # fields of `statistics.Figures`; where too many are lost, of `Counts`
    levels: dict[str, dict[str, Any]]  # the same
    answers: tuple[JudgedAnswer, ...]  # lost ones too
    groups: tuple[Group, ...]  # judged; () where the answers come from files

    @property
    def is_refused(self) -> bool:
        """Too many answers are lost: there are counts and no figures."""
        return not has_figures(self.overall)

    def as_json(self) -> dict[str, Any]:
        """`answers`, `lost`, `accuracy`, `accuracy_stderr`, `tool_calls`, ..., the same under `levels`."""
        return self.overall | {"levels": self.levels}

    def metrics(self) -> dict[str, float]:
        """Counts, accuracy and calls under the names of a run's validations."""
        metrics = {
            "validation/answers_count": self.overall["answers"],
            "validation/lost_count": self.overall["lost"],
        }
        if self.is_refused:
            return metrics
        metrics["validation/accuracy_fraction"] = self.overall["accuracy"]
        metrics["validation/calls_per_answer"] = self.overall["tool_calls"]
        if self.overall["accuracy_lenient"] is not None:
            metrics["validation/accuracy_lenient_fraction"] = self.overall["accuracy_lenient"]
        for level, part in self.levels.items():
            if has_figures(part):
                metrics[f"validation/accuracy_fraction/{level}"] = part["accuracy"]
                metrics[f"validation/calls_per_answer/{level}"] = part["tool_calls"]
        return metrics | _tool_metrics(self.overall["by_tool"]) | _at_metrics(self.answers)


def _tool_metrics(by_tool: Mapping[str, Mapping[str, Any]]) -> dict[str, float]:
    """TC and TP of each tool; {} with one tool, whose figures are those of the whole."""
    metrics: dict[str, float] = {}
    for tool, part in by_tool.items() if len(by_tool) > 1 else ():
        metrics[f"validation/tool_calls_per_answer/{tool}"] = part["tool_calls"]
        if part["tool_productivity"] is not None:
            metrics[f"validation/tool_productivity_ratio/{tool}"] = part["tool_productivity"]
    return metrics


def _at_metrics(answers: Sequence[JudgedAnswer]) -> dict[str, float]:
    """avg@k of the k answers that each question was asked for, and pass@1, pass@2, pass@4, ..., pass@k.

    {} for one answer a question, whose avg@1 is the accuracy. Means over questions; those of which too many answers
    were lost are left out.
    """
    asked = by_problem(answers).values()
    samples = max(map(len, asked))
    if samples == 1:
        return {}
    back = [[answer.is_correct for answer in kept(same)] for same in asked]
    shares = [sum(right) / len(right) for right in back if right]
    metrics = {f"validation/average_at_fraction/{samples}": sum(shares) / len(shares)}
    for k in usual_ks(samples):
        values = [pass_at(len(right), sum(right), k) for right in back if len(right) >= k]
        if values:
            metrics[f"validation/pass_at_fraction/{k}"] = sum(values) / len(values)
    return metrics


def has_figures(part: Mapping[str, Any]) -> bool:
    """Whether a part of an evaluation has more than counts."""
    return "accuracy" in part


def lost_text(part: Mapping[str, Any]) -> str:
    """`12 of 400 answers lost (3.0%: 11 to search, 1 to the judge)`."""
    asked = part["answers"] + part["lost"]
    share = f"{part['lost'] / max(1, asked):.1%}"
    who = lost_to_text(part["lost_to"])
    return f"{part['lost']} of {asked} answers lost ({': '.join(filter(None, (share, who)))})"


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
    max_lost_fraction: float = MAX_LOST_FRACTION,
) -> Evaluation:
    """Answers every problem `samples` times with the parameters that the engine holds.

    Each host answers and judges its share, and gets what the others did.

    Args:
      max_lost_fraction: share of the answers up to which there are figures without those lost.
    """

    def collect(asked: Sequence[Problem], numbers: Sequence[Sequence[int]]) -> list[Group]:
        return runner.run(
            collector.collect(
                asked, samples=numbers, sampling=sampling, seed=seed, stream=stream, version=version
            )
        )

    part = own_part(len(problems), samples, "samples")
    own = ask_lost_again(collect(part.of(problems), part.numbers), collect)
    [judged] = judged_by_all_hosts(judging, problems, [(samples, own)], "samples")
    return evaluation_of(judged, max_lost_fraction, collector.tools.names)


def evaluation_of(
    groups: Sequence[Group],
    max_lost_fraction: float = MAX_LOST_FRACTION,
    tools: Sequence[str] = (),
) -> Evaluation:
    """The evaluation of judged groups; a level of which too many answers are lost has counts only.

    Args:
      tools: names of the run's tools, which have figures also where nobody called them.

    Raises:
      RuntimeError: log-probs of the decoder are not finite.
    """
    check_sampled(groups, "evaluation")
    return evaluation_of_answers(of_groups(groups), max_lost_fraction, tools, groups)


def evaluation_of_answers(
    answers: Sequence[JudgedAnswer],
    max_lost_fraction: float,
    tools: Sequence[str],
    groups: Sequence[Group] = (),
) -> Evaluation:
    """The same of answers, which may come from files."""
    overall = _part(answers, max_lost_fraction, tools)
    by_level: dict[str, list[JudgedAnswer]] = {}
    for answer in answers:
        if answer.level:
            by_level.setdefault(answer.level, []).append(answer)
    # With the whole refused no part of it is shown.
    allowed = max_lost_fraction if has_figures(overall) else -1.0
    return Evaluation(
        overall=overall,
        levels={level: _part(part, allowed, tools) for level, part in by_level.items()},
        answers=tuple(answers),
        groups=tuple(groups),
    )


def _part(
    answers: Sequence[JudgedAnswer], max_lost_fraction: float, tools: Sequence[str]
) -> dict[str, Any]:
    rests_on = counts_of(answers)
    if not rests_on.answers or rests_on.lost_fraction > max_lost_fraction:
        return dataclasses.asdict(rests_on)
    return dataclasses.asdict(figures_of(answers, tools))
