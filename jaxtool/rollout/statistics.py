"""Figures of a set of scored trajectories: what a step logs and what an evaluation reports.

TC is the mean number of calls that got an observation; TP = correct answers / calls (OTC-PO,
section 2.1) and is undefined (None) without calls. Trajectories masked by infrastructure failures
are in no mean; how many they were stands beside it (`Counts.lost`, `tools/infrastructure_failed_fraction`).
"""

import collections
import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxtool.core.types import (
    FinishReason,
    Group,
    Origin,
    Sample,
    ToolStatus,
    Trajectory,
    samples_of,
)

# Share of an evaluation's answers that may be lost and still leave figures of the others. At 1 % the lost
# ones could move the accuracy by one point, and TC by 0.01 for each call that they make more than others.
MAX_LOST_FRACTION = 0.01


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counts:
    """What a set of figures rests on."""

    problems: int  # with an answer
    answers: int  # judged: all figures are of these
    lost: int  # to the infrastructure: asked for, and in no figure

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
    accuracy_lenient: float | None = None  # by the judge's lenient rule; None: it reports none


def counts(groups: Sequence[Group]) -> Counts:
    """How many answers came back, and how many were lost."""
    samples = samples_of(groups)
    kept = [sample for sample in samples if not sample.is_masked]
    return Counts(
        problems=len({sample.trajectory.problem.problem_id for sample in kept}),
        answers=len(kept),
        lost=len(samples) - len(kept),
    )


def figures(groups: Sequence[Group]) -> Figures:
    """Figures of all judged samples that the infrastructure let finish."""
    kept = [sample for sample in samples_of(groups) if not sample.is_masked]
    if not kept:
        raise ValueError("no trajectory finished: there is nothing to report")
    ts = [sample.trajectory for sample in kept]
    is_correct = [bool(sample.is_correct) for sample in kept]
    clusters = [t.problem.problem_id for t in ts]
    accuracy, accuracy_stderr = clustered_mean([float(c) for c in is_correct], clusters)
    calls_mean, calls_stderr = clustered_mean([float(t.num_tool_calls) for t in ts], clusters)
    correct = sum(is_correct)
    calls = sum(t.num_tool_calls for t in ts)
    return Figures(
        **dataclasses.asdict(counts(groups)),
        accuracy=accuracy,
        accuracy_stderr=accuracy_stderr,
        tool_calls=calls_mean,
        tool_calls_stderr=calls_stderr,
        tool_productivity=correct / calls if calls else None,
        tool_calls_by_tool=calls_by_tool(ts),
        accuracy_lenient=_accuracy_lenient(kept),
    )


def calls_by_tool(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Calls of an answer by tool, mean; tools that nobody called are not there."""
    found = collections.Counter(call.tool for t in trajectories for call in t.tool_calls)
    return {tool: found[tool] / len(trajectories) for tool in sorted(found)}


def _accuracy_lenient(samples: Sequence[Sample]) -> float | None:
    """Share right by the lenient rule of the judge, where it gave a verdict by one for each."""
    verdicts = [None if s.verdict is None else s.verdict.is_lenient for s in samples]
    known = [verdict for verdict in verdicts if verdict is not None]
    return float(np.mean(known)) if len(known) == len(samples) else None


def clustered_mean(values: Sequence[float], clusters: Sequence[str]) -> tuple[float, float]:
    """Mean over all values and its standard error, values of one cluster (problem) not independent.

    SE = sqrt(G/(G-1) Σ_g (Σ_{i∈g} (x_i - mean))²) / N; with one value a cluster it is s / sqrt(N).
    """
    mean = float(np.mean(values))
    sums: dict[str, float] = collections.defaultdict(float)
    for value, cluster in zip(values, clusters, strict=True):
        sums[cluster] += value - mean
    if len(sums) < 2:
        return mean, 0.0
    squares = sum(total**2 for total in sums.values())
    return mean, float(np.sqrt(len(sums) / (len(sums) - 1) * squares) / len(values))


def figures_by_level(groups: Sequence[Group]) -> dict[str, Figures]:
    """Figures per level, levels in order of first appearance; problems without one are left out."""
    levels = dict.fromkeys(group.problem.level for group in groups if group.problem.level)
    return {
        level: figures([group for group in groups if group.problem.level == level])
        for level in levels
    }


def step_metrics(groups: Sequence[Group]) -> dict[str, float]:
    """Metrics of the scored groups of one rollout batch, under the names of docs and report.

    A group that lost a sample is in no mean: its others are those that did not need the tool.
    """
    metrics = {"tools/infrastructure_failed_fraction": counts(groups).lost_fraction}
    groups = [group for group in groups if group.is_whole]
    kept = [sample for sample in samples_of(groups) if sample.score is not None]
    scores = [sample.score for sample in kept if sample.score is not None]
    if not scores:
        return metrics
    ts = [sample.trajectory for sample in kept]
    correct = [sample.is_correct for sample in kept]
    whole = figures(groups)
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
    for tool, mean in whole.tool_calls_by_tool.items():
        metrics[f"tools/calls_per_answer/{tool}"] = mean
    for level, part in figures_by_level(groups).items():
        metrics[f"level/accuracy_fraction/{level}"] = part.accuracy
        metrics[f"level/calls_per_answer/{level}"] = part.tool_calls
    return metrics | _status_metrics(ts) | _finish_metrics(ts)


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
