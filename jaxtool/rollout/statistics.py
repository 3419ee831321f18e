"""Figures of a set of scored trajectories: what a step logs and what an evaluation reports.

TC is the mean number of calls that got an observation; TP = correct answers / calls (OTC-PO,
section 2.1) and is undefined (None) without calls. Trajectories masked by infrastructure failures
are in no mean; how many they were stands beside it (`Counts.lost`, `tools/infrastructure_failed_fraction`).
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.behaviour.metrics import behaviour_metrics
from jaxtool.core.types import (
    FinishReason,
    Group,
    Origin,
    ToolStatus,
    Trajectory,
    samples_of,
)
from jaxtool.rewards.call_cost import CallCost
from jaxtool.rollout.answer_equations import productivity
from jaxtool.rollout.judged_answers import JudgedAnswer, kept, of_groups
from jaxtool.rollout.tool_figures import ToolFigures, clustered_mean, figures_by_tool

# Share of an evaluation's answers that may be lost and still leave figures of the others. At 1 % the lost
# ones could move the accuracy by one point, and TC by 0.01 for each call that they make more than others.
MAX_LOST_FRACTION = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What a set of figures rests on."""

    problems: int  # with an answer
    answers: int  # judged: all figures are of these
    lost: int  # to the infrastructure: asked for, and in no figure
    # How many of them each tool lost, or the judge, where somebody noted it.
    lost_to: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def lost_fraction(self) -> float:
        return self.lost / max(1, self.answers + self.lost)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figures(Counts):
    """Accuracy and cost of one set of answers."""

    accuracy: float
    accuracy_stderr: float  # over problems: samples of one problem are not independent
    tool_calls: float  # TC
    tool_calls_stderr: float
    tool_productivity: float | None  # TP
    tool_calls_by_tool: dict[str, float] = dataclasses.field(default_factory=dict)  # TC of each
    by_tool: dict[str, ToolFigures] = dataclasses.field(default_factory=dict)
    accuracy_lenient: float | None = None  # by the judge's lenient rule; None: it reports none


def counts(groups: Sequence[Group]) -> Counts:
    """How many answers came back, and how many were lost."""
    return counts_of(of_groups(groups))


def figures(groups: Sequence[Group], tools: Sequence[str] = ()) -> Figures:
    """Figures of all judged samples that the infrastructure let finish.

    Args:
      tools: names of the run's tools, which have figures also where nobody called them.
    """
    return figures_of(of_groups(groups), tools)


def counts_of(answers: Sequence[JudgedAnswer]) -> Counts:
    """How many answers came back, and how many were lost."""
    present = kept(answers)
    return Counts(
        problems=len({answer.problem_id for answer in present}),
        answers=len(present),
        lost=len(answers) - len(present),
        lost_to=dict(collections.Counter(a.lost_to for a in answers if a.lost_to).most_common()),
    )


def figures_of(answers: Sequence[JudgedAnswer], tools: Sequence[str] = ()) -> Figures:
    """Figures of all answers that came back.

    Args:
      tools: names of the run's tools, which have figures also where nobody called them.
    """
    present = kept(answers)
    if not present:
        raise ValueError("no trajectory finished: there is nothing to report")
    is_correct = [answer.is_correct for answer in present]
    clusters = [answer.problem_id for answer in present]
    made = [answer.num_calls for answer in present]
    accuracy, accuracy_stderr = clustered_mean([float(c) for c in is_correct], clusters)
    calls_mean, calls_stderr = clustered_mean([float(count) for count in made], clusters)
    by_tool = figures_by_tool(
        [answer.calls for answer in present],
        is_correct,
        clusters,
        tools,
        [answer.failed for answer in present],
    )
    return Figures(
        **dataclasses.asdict(counts_of(answers)),
        accuracy=accuracy,
        accuracy_stderr=accuracy_stderr,
        tool_calls=calls_mean,
        tool_calls_stderr=calls_stderr,
        tool_productivity=productivity(sum(is_correct), sum(made)),
        tool_calls_by_tool={tool: part.tool_calls for tool, part in by_tool.items()},
        by_tool=by_tool,
        accuracy_lenient=_accuracy_lenient(present),
    )


def _accuracy_lenient(answers: Sequence[JudgedAnswer]) -> float | None:
    """Share right by the lenient rule of the judge, where it gave a verdict by one for each."""
    known = [answer.is_lenient for answer in answers if answer.is_lenient is not None]
    return float(np.mean(known)) if len(known) == len(answers) else None


def figures_by_level(groups: Sequence[Group], tools: Sequence[str] = ()) -> dict[str, Figures]:
    """Figures per level, levels in order of first appearance; problems without one are left out."""
    levels = dict.fromkeys(group.problem.level for group in groups if group.problem.level)
    return {
        level: figures([group for group in groups if group.problem.level == level], tools)
        for level in levels
    }


def step_metrics(
    groups: Sequence[Group], tools: Sequence[str] = (), call_cost: CallCost | None = None
) -> dict[str, float]:
    """Metrics of the scored groups of one rollout batch, under the names of docs and report.

    A group that lost a sample is in no mean: its others are those that did not need the tool.

    Args:
      tools: names of the run's tools.
      call_cost: what the rewards took for m; None counts calls.
    """
    metrics = {"tools/infrastructure_failed_fraction": counts(groups).lost_fraction}
    groups = [group for group in groups if group.is_whole]
    kept = [sample for sample in samples_of(groups) if sample.score is not None]
    scores = [sample.score for sample in kept if sample.score is not None]
    if not scores:
        return metrics
    ts = [sample.trajectory for sample in kept]
    correct = [sample.is_correct for sample in kept]
    whole = figures(groups, tools)
    metrics |= {
        "reward/mean": float(np.mean([score.reward for score in scores])),
        "reward/accuracy_fraction": whole.accuracy,
        "reward/without_answer_fraction": float(
            np.mean([s.verdict is None or s.verdict.answer is None for s in kept])
        ),
        "reward/tool_coefficient_mean": float(np.mean([s.tool_coefficient for s in scores])),
        "tools/calls_per_answer": whole.tool_calls,
        "tools/answers_with_call_fraction": float(np.mean([t.num_tool_calls > 0 for t in ts])),
        "tools/unexecuted_per_answer": float(np.mean([t.unexecuted_calls for t in ts])),
        "tools/invalid_per_answer": float(np.mean([t.invalid_calls for t in ts])),
        "tokens/response_mean": float(np.mean([np.sum(t.origins != Origin.PROMPT) for t in ts])),
        "tokens/policy_mean": float(np.mean([t.num_policy_tokens for t in ts])),
    }
    if whole.tool_productivity is not None:
        metrics["tools/productivity_ratio"] = whole.tool_productivity
    for name, wanted in (("correct", True), ("wrong", False)):
        calls = [t.num_tool_calls for t, c in zip(ts, correct, strict=True) if c is wanted]
        if calls:
            metrics[f"tools/calls_per_{name}_answer"] = float(np.mean(calls))
    for level, part in figures_by_level(groups).items():
        metrics[f"level/accuracy_fraction/{level}"] = part.accuracy
        metrics[f"level/calls_per_answer/{level}"] = part.tool_calls
    metrics |= _tool_metrics(whole) | _cost_metrics(ts, call_cost or CallCost())
    metrics |= behaviour_metrics(kept)
    return metrics | _status_metrics(ts) | _finish_metrics(ts)


def _tool_metrics(whole: Figures) -> dict[str, float]:
    """TC of each tool; of several tools also what the whole has of all calls."""
    metrics = {
        f"tools/calls_per_answer/{tool}": part.tool_calls for tool, part in whole.by_tool.items()
    }
    if len(whole.by_tool) < 2:
        return metrics
    for tool, part in whole.by_tool.items():
        share = part.answers_with_call / whole.answers
        metrics[f"tools/answers_with_call_fraction/{tool}"] = share
        if part.tool_productivity is not None:
            metrics[f"tools/productivity_ratio/{tool}"] = part.tool_productivity
        if part.accuracy_with_call is not None:
            metrics[f"tools/accuracy_with_call_fraction/{tool}"] = part.accuracy_with_call
    return metrics


def _cost_metrics(trajectories: Sequence[Trajectory], call_cost: CallCost) -> dict[str, float]:
    """Mean m, and what each tool called takes of it; {} where m is the number of calls."""
    if call_cost.counts_calls:
        return {}
    each = [call_cost.cost_by_tool(t) for t in trajectories]
    metrics = {"reward/call_cost_mean": float(np.mean([call_cost.cost(t) for t in trajectories]))}
    for tool in sorted({tool for costs in each for tool in costs}):
        mean = float(np.mean([costs.get(tool, 0.0) for costs in each]))
        metrics[f"reward/call_cost_mean/{tool}"] = mean
    return metrics


def _status_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    counts = collections.Counter(c.result.status for t in trajectories for c in t.tool_calls)
    total = sum(counts.values())
    if not total:
        return {}
    failed = {
        f"tools/failed_fraction/{status}": counts[status] / total
        for status in ToolStatus
        if status is not ToolStatus.OK
    }
    return {"tools/ok_fraction": counts[ToolStatus.OK] / total, **failed}


def _finish_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    counts = collections.Counter(t.finish_reason for t in trajectories)
    return {
        f"tokens/finish_fraction/{reason}": counts[reason] / len(trajectories)
        for reason in FinishReason
        if reason is not FinishReason.INFRASTRUCTURE
    }
