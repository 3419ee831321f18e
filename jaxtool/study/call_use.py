"""Over-use and under-use of tools in a comparison, by level, against the fewest calls that a level takes.

In calls an answer, by `behaviour.call_need`. A mean of calls alone hides one behind the other. Answers that were lost
are in neither.
"""

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from jaxtool.behaviour.call_need import calls_needed, over_use, under_use
from jaxtool.core.types import Group, samples_of
from jaxtool.study.compare import SAMPLINGS
from jaxtool.study.comparison_tables import Comparison
from jaxtool.train.evaluation import Evaluation

ALL = "all"


def call_use(groups: Sequence[Group]) -> dict[str, dict[str, float]]:
    """{level: {"answers", "needed", "over_use", "under_use"}}, and the same of `ALL` levels together."""
    calls: dict[str, list[tuple[int, int]]] = {ALL: []}
    for sample in samples_of(groups):
        if not sample.is_masked:
            level = sample.trajectory.problem.level
            pair = sample.trajectory.num_tool_calls, calls_needed(level)
            calls[ALL].append(pair)
            calls.setdefault(level, []).append(pair)
    return {level: _use(pairs) for level, pairs in calls.items() if pairs}


def _use(pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    made, needed = zip(*pairs, strict=True)
    return {
        "answers": len(pairs),
        "needed": sum(needed) / len(pairs),
        "over_use": over_use(made, needed),
        "under_use": under_use(made, needed),
    }


def use_of(comparison: Comparison) -> dict[str, dict[str, Any]]:
    """{variant: {"greedy"|"sampled": what `call_use` gives}}; {} where too many answers are lost."""
    return {
        variant: {way: _use_of(both[way]) for way in SAMPLINGS}
        for variant, both in comparison.variants.items()
    }


def _use_of(evaluation: Evaluation) -> dict[str, dict[str, float]]:
    return {} if evaluation.is_refused else call_use(evaluation.groups)


def use_rows(
    comparison: Comparison, way: str
) -> tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]:
    """Columns and rows by level: calls that are needed, then over-use and under-use of each variant, `+0.52 / -0.01`."""
    uses = {variant: found[way] for variant, found in use_of(comparison).items()}
    levels = dict.fromkeys(level for use in uses.values() for level in use)
    rows: list[tuple[str | float | None, ...]] = []
    for level in levels:
        parts = [use.get(level) for use in uses.values()]
        needed = next(part["needed"] for part in parts if part is not None)
        rows.append((level, f"{needed:.2f}", *map(_cell, parts)))
    return ("level", "needed", *uses), rows


def print_use(comparison: Comparison, calls: str = "calls") -> None:
    """The tables on the console.

    Args:
      calls: what they are called.
    """
    for way in SAMPLINGS:
        columns, rows = use_rows(comparison, way)
        title = f"{calls.capitalize()} beyond those needed / missing, an answer, {way}"
        table = Table(title=title, title_justify="left")
        for column in columns:
            table.add_column(column, justify="left" if column == "level" else "right")
        for row in rows:
            table.add_row(*map(str, row))
        Console().print(table)


def _cell(part: dict[str, float] | None) -> str:
    if part is None:
        return "refused"
    return f"+{part['over_use']:.2f} / -{part['under_use']:.2f}"
