"""Arithmetic of the study: optimal calls, regret, means over seeds, steps to a target. Pure functions.

TC is calls an answer, TP correct answers a call (OTC-PO, 2504.14870, section 2.1). Regret is over-use and under-use
against the optimum, in calls an answer (`behaviour.call_need`).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.behaviour.call_need import CALCULATIONS, over_use, under_use
from jaxtool.rollout.tool_figures import figures_by_tool

# r_tool of OTC-PPO for one call with c = 3 (2504.14870, equation 5), cos(π / 5): below this accuracy a
# call that makes the answer right is worth more than an answer from the head.
MENTAL_THRESHOLD = math.cos(math.pi / 5)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvalRecord:
    """What the study keeps of one answer."""

    question: str
    level: str
    calls: int
    is_correct: bool
    tokens: int  # of the policy
    is_lost: bool = False  # to the infrastructure, also when asked again: in no figure
    # Calls of each tool of the run, 0 of one that was not called; {} in files of before.
    calls_by_tool: Mapping[str, int] = dataclasses.field(default_factory=dict)
    lost_to: str = (
        ""  # who failed where it is lost: a tool's name, or "judge"; "" in files of before
    )


def optimal_calls(level: str, mental_accuracy: float) -> int:
    """Fewest calls worth making on a level for a policy with this accuracy without any.

    Calculated levels take one call and chained ones two, unless the policy knows the answers: 0 from
    `MENTAL_THRESHOLD` on.
    """
    return 0 if mental_accuracy >= MENTAL_THRESHOLD else CALCULATIONS.get(level, 1)


def accuracy_by_level(answers: Sequence[EvalRecord]) -> dict[str, float]:
    """Share of correct answers of each level, levels in order of first appearance."""
    parts = by_level(answers)
    return {level: _mean([float(a.is_correct) for a in part]) for level, part in parts.items()}


def by_level(answers: Sequence[EvalRecord]) -> dict[str, list[EvalRecord]]:
    parts: dict[str, list[EvalRecord]] = {}
    for answer in answers:
        parts.setdefault(answer.level, []).append(answer)
    return parts


def whole(answers: Sequence[EvalRecord]) -> list[EvalRecord]:
    """Those that came back: what figures are made of."""
    return [answer for answer in answers if not answer.is_lost]


def whole_in_both(
    new: Sequence[EvalRecord], old: Sequence[EvalRecord]
) -> tuple[list[EvalRecord], list[EvalRecord]]:
    """The answers to the questions that neither side lost: what differences are made of.

    Raises:
      ValueError: the two were asked other questions.
    """
    if [a.question for a in new] != [b.question for b in old]:
        raise ValueError("answers to different questions cannot be compared")
    both = [(a, b) for a, b in zip(new, old, strict=True) if not a.is_lost and not b.is_lost]
    return [a for a, _ in both], [b for _, b in both]


def lost_fraction(answers: Sequence[EvalRecord]) -> float:
    """Share of the answers that are lost."""
    return sum(a.is_lost for a in answers) / max(1, len(answers))


def figures(answers: Sequence[EvalRecord], optimum: Mapping[str, int]) -> dict[str, Any]:
    """Figures of one variant and seed; `tool_productivity` is None without calls.

    Args:
      answers: none of them lost.
      optimum: calls by level.
    """
    made, best = [a.calls for a in answers], [optimum[a.level] for a in answers]
    calls = sum(made)
    return {
        "accuracy": _mean([float(a.is_correct) for a in answers]),
        "tool_calls": calls / len(answers),
        "tool_productivity": sum(a.is_correct for a in answers) / calls if calls else None,
        "optimal_calls": _mean(best),
        "over_use": over_use(made, best),
        "under_use": under_use(made, best),
        "tokens": _mean([a.tokens for a in answers]),
    }


def by_tool(answers: Sequence[EvalRecord]) -> dict[str, dict[str, float | None]]:
    """Figures of each tool of one variant and seed, as `tool_figures` defines them; {} where none is named.

    `tool_calls` is TC, `tool_productivity` TP (None without calls), `with_call` the share of the answers that call the
    tool, and `accuracy_with_call` EM of these (None without one).

    Args:
      answers: none of them lost.
    """
    found = figures_by_tool(
        [a.calls_by_tool for a in answers],
        [a.is_correct for a in answers],
        [a.question for a in answers],
    )
    return {
        tool: {
            "tool_calls": part.tool_calls,
            "tool_productivity": part.tool_productivity,
            "with_call": part.answers_with_call / len(answers),
            "accuracy_with_call": part.accuracy_with_call,
        }
        for tool, part in found.items()
    }


def by_tool_over_seeds(
    each: Sequence[Mapping[str, Mapping[str, float | None]]],
) -> dict[str, dict[str, Any]]:
    """Figures by tool of several seeds, each as `mean_stderr`, of the tools that all seeds name."""
    tools = [tool for tool in each[0] if all(tool in seed for seed in each)]
    return {tool: over_seeds([seed[tool] for seed in each]) for tool in tools}


def mean_stderr(values: Sequence[float | None]) -> dict[str, Any]:
    """{"mean", "stderr", "seeds"}: stderr = s / √n over seeds; None for one seed or with a None."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return {"mean": None, "stderr": None, "seeds": list(values)}
    mean = _mean(known)
    error = None
    if len(known) > 1:
        squares = sum((value - mean) ** 2 for value in known)
        error = math.sqrt(squares / (len(known) - 1) / len(known))
    return {"mean": mean, "stderr": error, "seeds": known}


def over_seeds(each: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The figures of several seeds, each as `mean_stderr`."""
    return {name: mean_stderr([figures_[name] for figures_ in each]) for name in each[0]}


def against(new: Mapping[str, Any], old: Mapping[str, Any]) -> dict[str, float | None]:
    """What `new` changes against `old` in one seed: both are `figures` of the same questions."""
    tp, old_tp = new["tool_productivity"], old["tool_productivity"]
    return {
        "accuracy_points": 100 * (new["accuracy"] - old["accuracy"]),
        "calls_cut": 1 - new["tool_calls"] / old["tool_calls"] if old["tool_calls"] else None,
        "productivity_gain": tp / old_tp - 1 if tp and old_tp else None,
        "over_use": new["over_use"] - old["over_use"],
        "under_use": new["under_use"] - old["under_use"],
    }


def against_by_tool(
    new: Mapping[str, Mapping[str, float | None]], old: Mapping[str, Mapping[str, float | None]]
) -> dict[str, dict[str, float | None]]:
    """What `new` changes against `old` in one seed, by tool that both name: both are of the same questions."""
    found = {}
    for tool in [tool for tool in new if tool in old]:
        calls, old_calls = new[tool]["tool_calls"], old[tool]["tool_calls"]
        tp, old_tp = new[tool]["tool_productivity"], old[tool]["tool_productivity"]
        found[tool] = {
            "calls_cut": 1 - (calls or 0) / old_calls if old_calls else None,
            "productivity_gain": tp / old_tp - 1 if tp and old_tp else None,
        }
    return found


def first_step_reaching(curve: Sequence[tuple[int, float]], target: float) -> int | None:
    """First step of a curve whose value is at least `target`; None if it stays below."""
    return next((step for step, value in curve if value >= target), None)


def best_point(curve: Sequence[tuple[int, float]]) -> tuple[int, float]:
    """(step, value) of the highest value; the first of equal ones."""
    return max(curve, key=lambda point: (point[1], -point[0]))


def tokens_until(rows: Sequence[Mapping[str, float]], answers_per_step: int, step: int) -> float:
    """Policy tokens sampled for the updates before `step`.

    Args:
      rows: metrics of a run, one row a step.
    """
    # A step that lost a sample of every group has no means.
    return sum(
        row.get("tokens/policy_mean", 0.0) * answers_per_step for row in rows if row["step"] < step
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
