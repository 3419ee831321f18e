"""What one policy changes against another, question by question: both answered the same ones.

The standard errors are those of the paired difference, over questions. Not covered: intervals by resampling.
"""

from typing import Any

from jaxtool.rollout.judged_answers import by_problem
from jaxtool.rollout.statistics import figures_of
from jaxtool.rollout.tool_figures import clustered_mean
from jaxtool.study import tool_tables
from jaxtool.train.evaluation import Evaluation


def paired(new: Evaluation, old: Evaluation) -> dict[str, Any]:
    """What `new` changes against `old` on the questions of which both have every answer.

    Keys: `questions` and `questions_left_out` (one side lost an answer); `calls_cut` (share of old's calls
    saved), `calls_difference` (calls an answer, new less old) and `accuracy_difference_points`, each with its
    `_stderr` (paired over questions), `productivity_gain` (TP new / TP old - 1), and `by_tool`, those about calls
    for each tool. Only the first two where one side has no figures.
    """
    news, olds = by_problem(new.answers), by_problem(old.answers)
    whole = [
        question
        for question, answers in news.items()
        if not any(answer.is_lost for answer in (*answers, *olds[question]))
    ]
    rests_on: dict[str, Any] = {
        "questions": len(whole),
        "questions_left_out": len(news) - len(whole),
    }
    if new.is_refused or old.is_refused or not whole:
        return rests_on
    pairs = [pair for q in whole for pair in zip(news[q], olds[q], strict=True)]
    questions = [a.problem_id for a, _ in pairs]
    right = [float(a.is_correct) - float(b.is_correct) for a, b in pairs]
    gap, error = clustered_mean(right, questions)
    calls = [float(a.num_calls - b.num_calls) for a, b in pairs]
    calls_gap, calls_error = clustered_mean(calls, questions)
    tools = sorted({*new.overall["by_tool"], *old.overall["by_tool"]})
    new_figures = figures_of([a for a, _ in pairs], tools)
    old_figures = figures_of([b for _, b in pairs], tools)
    old_calls, new_calls = old_figures.tool_calls, new_figures.tool_calls
    old_tp, new_tp = old_figures.tool_productivity, new_figures.tool_productivity
    return rests_on | {
        "calls_cut": 1 - new_calls / old_calls if old_calls else None,
        "calls_difference": calls_gap,
        "calls_difference_stderr": calls_error,
        "accuracy_difference_points": 100 * gap,
        "accuracy_difference_points_stderr": 100 * error,
        "productivity_gain": new_tp / old_tp - 1 if new_tp and old_tp else None,
        "by_tool": tool_tables.paired_by_tool(pairs, new_figures.by_tool, old_figures.by_tool),
    }
