"""Tables and differences by tool of an evaluation: EM, TC and TP of each tool (OTC-PO, section 2.1).

With one tool there are none, since its figures are those of the whole; JSON has them always. Not covered: what is
the same with any number of tools (`compare`), the figures themselves (`jaxtool.rollout.tool_figures`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.rollout.judged_answers import JudgedAnswer
from jaxtool.rollout.tool_figures import ToolFigures, clustered_mean
from jaxtool.train.evaluation import Evaluation, has_figures

# Of a tool that a part does not name.
_NOT_CALLED: Mapping[str, Any] = dataclasses.asdict(
    ToolFigures(
        tool_calls=0.0,
        tool_calls_stderr=0.0,
        tool_productivity=None,
        answers_with_call=0,
        accuracy_with_call=None,
        failed_fraction=None,
    )
)
Variants = Mapping[str, Mapping[str, Evaluation]]  # by name, then by way of sampling
Rows = list[tuple[str | float | None, ...]]
BY_TOOL = "By tool: answers that call it, calls and productivity"
NOTE = (
    "By tool: EM of the answers that call it; TC and TP of its calls over all answers, so that the TC add up to "
    "those of the main table."
)


def tools_of(variants: Variants) -> list[str]:
    """Names of the tools that have figures anywhere."""
    parts = [evaluation.overall for both in variants.values() for evaluation in both.values()]
    return sorted({tool for part in parts for tool in part.get("by_tool", ())})


def tool_rows(variants: Variants) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows: a line for each variant, way of sampling and tool; no rows with one tool."""
    columns = (
        *("variant", "sampling", "tool", "answers with call"),
        *("their accuracy %", "calls (TC)", "productivity (TP)", "failed calls %"),
    )
    tools = tools_of(variants)
    rows: Rows = [
        (variant, sampling, tool, *_cells(evaluation.overall, tool))
        for variant, both in variants.items()
        for sampling, evaluation in both.items()
        for tool in tools
    ]
    return columns, rows if len(tools) > 1 else []


def tool_level_rows(variants: Variants, sampling: str) -> tuple[tuple[str, ...], Rows]:
    """Columns and rows: calls (TC) of each variant by level and tool; no rows with one tool or without levels."""
    tools = tools_of(variants)
    evaluations = [both[sampling] for both in variants.values()]
    rows: Rows = [
        (level, tool, *(_calls(evaluation.levels[level], tool) for evaluation in evaluations))
        for level in evaluations[0].levels
        for tool in tools
    ]
    return ("level", "tool", *variants), rows if len(tools) > 1 else []


def paired_by_tool(
    pairs: Sequence[tuple[JudgedAnswer, JudgedAnswer]],
    new: Mapping[str, ToolFigures],
    old: Mapping[str, ToolFigures],
) -> dict[str, dict[str, float | None]]:
    """What `new` changes against `old` by tool: the keys about calls of `paired.paired`.

    Args:
      pairs: answers of both to the same questions, new and old.
      new: figures of the first ones; the same tools as in `old`.
    """
    questions = [answer.problem_id for answer, _ in pairs]
    found = {}
    for tool in new:
        gaps = [float(a.calls.get(tool, 0) - b.calls.get(tool, 0)) for a, b in pairs]
        gap, error = clustered_mean(gaps, questions)
        now, before = new[tool].tool_calls, old[tool].tool_calls
        now_tp, before_tp = new[tool].tool_productivity, old[tool].tool_productivity
        found[tool] = {
            "calls_cut": 1 - now / before if before else None,
            "calls_difference": gap,
            "calls_difference_stderr": error,
            "productivity_gain": now_tp / before_tp - 1 if now_tp and before_tp else None,
        }
    return found


def _cells(part: Mapping[str, Any], tool: str) -> tuple[str, ...]:
    """Of one line, behind its names."""
    if not has_figures(part):
        return ("refused", "–", "–", "–", "–")
    found = part["by_tool"].get(tool, _NOT_CALLED)
    right, tp = found["accuracy_with_call"], found["tool_productivity"]
    failed = found["failed_fraction"]
    return (
        str(found["answers_with_call"]),
        "–" if right is None else f"{100 * right:.1f}",
        f"{found['tool_calls']:.2f} ± {found['tool_calls_stderr']:.2f}",
        "–" if tp is None else f"{tp:.2f}",
        "–" if failed is None else f"{100 * failed:.1f}",
    )


def _calls(part: Mapping[str, Any], tool: str) -> str:
    if not has_figures(part):
        return "refused"
    return f"{part['by_tool'].get(tool, _NOT_CALLED)['tool_calls']:.2f}"
