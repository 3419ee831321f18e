"""The tables of a suite: the paper's figure beside ours with its interval, rows that were not run with their commands.

Figures of ours are those of `answer_equations` with the intervals of `answer_intervals`, in the paper's unit, set by
set. Not covered: where answers come from (`suite_rows`).
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table as RichTable

from jaxtool.rollout.answer_equations import accuracy, productivity, tool_calls
from jaxtool.rollout.answer_intervals import Figure, interval, resample
from jaxtool.rollout.answer_table import AnswerTable
from jaxtool.study.paper_suites import AVERAGE, PaperSuite, Row, SuiteTable, Unit

NOT_REPORTED = "not reported"
_WIDTH = 160  # characters of a line where no terminal says


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowResult:
    """Our figures of one row. A set has none where too many of its answers were lost, or where nothing was called."""

    figures: Mapping[tuple[str, str], Figure | None]  # by (figure, set)
    answers: int  # that the figures rest on
    lost: int
    refused: tuple[str, ...] = ()  # sets of which too many answers were lost


def row_result(
    table: SuiteTable, answers: AnswerTable, *, max_lost_fraction: float, seed: int
) -> RowResult:
    """Our figures of a row from its answers, whose problem ids begin with their set.

    Args:
      max_lost_fraction: of a set's answers; above it the set has no figures.
      seed: of the intervals.
    """
    parts = {one: _of_set(answers, one) for one in table.sets}
    refused = tuple(
        one
        for one, part in parts.items()
        if not part.answers or part.lost_fraction > max_lost_fraction
    )
    figures: dict[tuple[str, str], Figure | None] = {
        (figure, one): None for figure, one in table.columns
    }
    drawn: dict[str, dict[str, np.ndarray]] = {figure: {} for figure in table.figures}
    for number, (one, part) in enumerate(parts.items()):
        if one in refused:
            continue
        for figure, (value, replicates, over) in _set_figures(part, table, seed + number).items():
            figures[figure, one] = interval(value, replicates, over)
            drawn[figure][one] = replicates
    for figure in table.figures:
        if (figure, AVERAGE) in figures and set(drawn[figure]) == set(table.sets):
            values = [figures[figure, one] for one in table.sets]
            mean = float(np.mean([value.value for value in values if value is not None]))
            # Sets are drawn apart from each other, so their replicates may be joined in any order.
            together = np.mean([drawn[figure][one] for one in table.sets], axis=0)
            figures[figure, AVERAGE] = interval(
                mean, together, "questions of each set, and samples"
            )
    return RowResult(
        figures=figures, answers=answers.answers, lost=answers.num_lost, refused=refused
    )


def _of_set(answers: AnswerTable, name: str) -> AnswerTable:
    return answers.chosen(
        [i for i, one in enumerate(answers.questions) if one.startswith(f"{name}/")]
    )


def _set_figures(
    part: AnswerTable, table: SuiteTable, seed: int
) -> dict[str, tuple[float, np.ndarray, str]]:
    """Value, replicates and what these are over, of each figure that has a value, in the table's unit."""
    drawn, scale = resample(part, seed=seed), _scale(table.unit)
    right, calls, count = (drawn.sums(name) for name in ("correct", "calls", "answers"))
    found: dict[str, tuple[float, np.ndarray, str]] = {}
    for figure in table.figures:
        if figure == "tc":
            found[figure] = (tool_calls(part), calls / count, drawn.over)
        elif figure == "tp":
            value = productivity(float(part.correct.sum()), float(part.calls.sum()))
            ratios = np.divide(right, calls, out=np.full_like(right, np.nan), where=calls > 0)
            if value is not None:
                found[figure] = (scale * value, scale * ratios, drawn.over)
        else:
            found[figure] = (scale * accuracy(part), scale * drawn.means("correct"), drawn.over)
    return found


def _scale(unit: Unit) -> float:
    return 100.0 if unit == "percent" else 1.0


def cells(table: SuiteTable, row: Row, result: RowResult | None) -> list[tuple[str, str, str, str]]:
    """(figure, set, the paper's, ours) of each column, as text."""
    return [
        (
            figure,
            one,
            _number(row.reported(figure, one), table, figure),
            _ours(table, figure, one, result),
        )
        for figure, one in table.columns
    ]


def _ours(table: SuiteTable, figure: str, one: str, result: RowResult | None) -> str:
    if result is None:
        return "–"
    found = result.figures[figure, one]
    if found is None:
        return "refused" if one in result.refused or (one == AVERAGE and result.refused) else "–"
    texts = [_number(value, table, figure) for value in (found.value, found.low, found.high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _number(value: float | None, table: SuiteTable, figure: str) -> str:
    if value is None:
        return NOT_REPORTED
    if figure == "tc":
        return f"{value:.2f}"
    return f"{value:.1f}" if table.unit == "percent" else f"{value:.3f}"


def print_suite(suite: PaperSuite, results: Mapping[tuple[str, str], RowResult]) -> None:
    """The tables of a suite, and the commands of the rows that have no result.

    Args:
      results: by (table, row).
    """
    console = Console()
    if not console.is_terminal:  # a file has no edge at which cells would be cut
        console = Console(width=_WIDTH)
    console.print(f"{escape(suite.title)} ({escape(suite.paper)})", style="bold")
    for table in suite.tables:
        console.print(_shown(table, results))
        note = f" ({table.sampling_note})" if table.sampling_note else ""
        console.print(escape(f"{table.citation}. Ours: {table.sampling}{note}."))
    for note in suite.notes:
        console.print(escape(f"- {note}"))
    print_missing(suite, results, console)


def _shown(table: SuiteTable, results: Mapping[tuple[str, str], RowResult]) -> RichTable:
    """A line for each row and set; one column of the paper's and one of ours for each figure."""
    shown = RichTable(title=table.caption, title_justify="left")
    shown.add_column("row", overflow="fold", min_width=12)
    for name in ("tools", "answers", "set"):
        shown.add_column(name, justify="right" if name == "answers" else "left")
    for figure in table.figures:
        shown.add_column(f"{figure}, paper", justify="right")
        shown.add_column(f"{figure}, ours", justify="right")
    for row in table.rows:
        result = results.get((table.name, row.name))
        found = {(figure, one): texts for figure, one, *texts in cells(table, row, result)}
        head = [
            row.name,
            "on" if row.tools else "off",
            "" if result is None else str(result.answers),
        ]
        for one in dict.fromkeys(one for _, one in table.columns):
            pairs = [found.get((figure, one), ["", ""]) for figure in table.figures]
            shown.add_row(*map(escape, (*head, one, *(text for pair in pairs for text in pair))))
            head = ["", "", ""]
        shown.add_section()
    return shown


def print_missing(
    suite: PaperSuite, results: Mapping[tuple[str, str], RowResult], console: Console
) -> None:
    """What makes each row that has no result, once for each name."""
    missing: dict[str, Row] = {}
    for table, row in suite.rows():
        if (table.name, row.name) not in results:
            missing.setdefault(row.name, row)
    if missing:
        console.print("Rows that were not run, and what makes them:", style="bold")
    for row in missing.values():
        note = f" ({row.note})" if row.note else ""
        console.print(escape(f"{row.name}: {row.method}, {row.model}{note}"), highlight=False)
        for line in suite.commands_of(row) or (f"none: {row.why}",):
            console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


def as_json(suite: PaperSuite, results: Mapping[tuple[str, str], RowResult]) -> dict[str, Any]:
    """The suite with our figures; keys in the docstring of `experiments.evaluate`."""
    return {
        "suite": suite.name,
        "title": suite.title,
        "paper": suite.paper,
        "notes": list(suite.notes),
        "tables": [
            {
                "name": table.name,
                "caption": table.caption,
                "citation": table.citation,
                "unit": table.unit,
                "sampling": {
                    "samples": table.samples,
                    "temperature": table.temperature,
                    "top_p": table.top_p,
                    "note": table.sampling_note,
                },
                "rows": [
                    _row_json(suite, table, row, results.get((table.name, row.name)))
                    for row in table.rows
                ],
            }
            for table in suite.tables
        ],
    }


def _row_json(
    suite: PaperSuite, table: SuiteTable, row: Row, result: RowResult | None
) -> dict[str, Any]:
    return {
        "name": row.name,
        "method": row.method,
        "model": row.model,
        "tools": row.tools,
        "calls": row.calls,
        "note": row.note,
        "commands": list(suite.commands_of(row)),
        "why": row.why,
        "answers": None if result is None else result.answers,
        "lost": None if result is None else result.lost,
        "figures": [
            {
                "figure": figure,
                "set": one,
                "paper": row.reported(figure, one),
                "ours": None if result is None else _figure_json(result.figures[figure, one]),
            }
            for figure, one in table.columns
        ],
    }


def _figure_json(figure: Figure | None) -> dict[str, Any] | None:
    return None if figure is None else dataclasses.asdict(figure)
