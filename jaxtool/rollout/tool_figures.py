"""Accuracy, TC and TP by tool, of any set of answers: what the tables of a run with several tools show.

The definitions are those of OTC-PO (2504.14870, section 2.1) with the calls of one tool in place of all calls, over all
answers. So TC of the tools add up to TC, 1 / TP of the tools add up to 1 / TP, and a tool that is alone has the
figures of the whole. Pure functions; knows no trajectory.
"""

import collections
import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxtool.rollout.answer_equations import productivity


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolFigures:
    """Of one tool in one set of answers."""

    tool_calls: float  # TC: its calls an answer, over all answers
    tool_calls_stderr: float  # over problems
    tool_productivity: float | None  # TP: correct answers / its calls; None without calls
    answers_with_call: int  # answers that called it
    accuracy_with_call: float | None  # EM of these; None where there is none
    # Share of its calls that ended in an error or at a limit; None without calls, or where nobody noted it.
    failed_fraction: float | None


def figures_by_tool(
    calls: Sequence[Mapping[str, int]],
    is_correct: Sequence[bool],
    problems: Sequence[str],
    tools: Iterable[str] = (),
    failed: Sequence[Mapping[str, int]] | None = None,
) -> dict[str, ToolFigures]:
    """Figures of each tool that was called and of each of `tools`, in the order of their names.

    Example: calls {search: 2, python: 1} of a right answer and {} of a right one: search has TC 1 and TP 2/2, python
    has TC 0.5 and TP 2/1; both are in one answer, which is right.

    Args:
      calls: of each answer by tool; a tool that it did not call may be left out.
      is_correct: of each answer.
      problems: the problem of each answer: answers to one problem are not independent.
      tools: names that have figures also where nobody called.
      failed: how many of `calls` failed; None: not noted.
    """
    names = sorted({*tools, *(tool for answer in calls for tool in answer)})
    correct = sum(is_correct)
    found = {}
    for tool in names:
        made = [answer.get(tool, 0) for answer in calls]
        mean, error = clustered_mean([float(count) for count in made], problems)
        lost = None if failed is None else sum(answer.get(tool, 0) for answer in failed)
        with_call = [right for count, right in zip(made, is_correct, strict=True) if count]
        found[tool] = ToolFigures(
            tool_calls=mean,
            tool_calls_stderr=error,
            tool_productivity=productivity(correct, sum(made)),
            answers_with_call=len(with_call),
            accuracy_with_call=sum(with_call) / len(with_call) if with_call else None,
            failed_fraction=lost / sum(made) if lost is not None and sum(made) else None,
        )
    return found


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
