"""Evaluations of several variants on the same questions, as tables for the console and for pages.

Every table says how many answers it rests on; where too many were lost it says so in place of figures.
Not covered: who evaluates (`compare`, `evaluating`), differences between variants (`paired`).
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from jaxtool.report.page import Headline, Report, Section, Table
from jaxtool.report.run_page import metric_sections
from jaxtool.rollout.lost import lost_to_text
from jaxtool.rundir.trajectory_log import TrajectoryView
from jaxtool.study import tool_tables
from jaxtool.study.accuracy_over_calls import pictures_of_evaluations
from jaxtool.train.evaluation import Evaluation, has_figures, lost_text

_MAIN = "All levels"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Evaluations by variant and way of sampling ("greedy", "sampled", or one of them)."""

    variants: Mapping[str, Mapping[str, Evaluation]]
    views: tuple[TrajectoryView, ...]  # some answers of every variant, greedy where there are such
    max_lost_fraction: float  # of the answers; above it there are no figures

    @property
    def samplings(self) -> tuple[str, ...]:
        """The ways of sampling that every variant was evaluated with."""
        return tuple(next(iter(self.variants.values())))

    def as_json(self) -> dict[str, Any]:
        """`{"variants": {variant: {sampling: figures}}}`, see `Evaluation.as_json`."""
        return {
            "variants": {
                variant: {sampling: evaluation.as_json() for sampling, evaluation in both.items()}
                for variant, both in self.variants.items()
            }
        }


def check_rests_on_enough(comparison: Comparison) -> None:
    """Raises ValueError if an evaluation lost too many answers to have figures."""
    refused = [
        f"{variant}, {sampling}: {lost_text(evaluation.overall)}"
        for variant, both in comparison.variants.items()
        for sampling, evaluation in both.items()
        if evaluation.is_refused
    ]
    if refused:
        raise ValueError(
            f"no figures, too many answers were lost ({'; '.join(refused)}; "
            f"Schedule.eval_max_lost_fraction allows {comparison.max_lost_fraction:.1%}): look at the log of what "
            "lost them and evaluate again"
        )


def _answers(part: Mapping[str, Any]) -> str:
    """`400`, or `398 of 400` where some are lost."""
    answers, lost = part["answers"], part["lost"]
    return f"{answers} of {answers + lost}" if lost else str(answers)


def _cell(part: Mapping[str, Any]) -> str:
    return f"{100 * part['accuracy']:.1f} ± {100 * part['accuracy_stderr']:.1f}"


def overall_rows(
    comparison: Comparison,
) -> tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]:
    """Columns and rows of the main table: one row per variant and way of sampling."""
    columns = ("variant", "sampling", "answers", "accuracy %", "calls (TC)", "productivity (TP)")
    rows: list[tuple[str | float | None, ...]] = []
    for variant, both in comparison.variants.items():
        for sampling, evaluation in both.items():
            whole = evaluation.overall
            if evaluation.is_refused:
                rows.append((variant, sampling, _answers(whole), "refused", "–", "–"))
                continue
            tp = whole["tool_productivity"]
            calls = f"{whole['tool_calls']:.2f} ± {whole['tool_calls_stderr']:.2f}"
            rows.append(
                (
                    variant,
                    sampling,
                    _answers(whole),
                    _cell(whole),
                    calls,
                    "–" if tp is None else f"{tp:.2f}",
                )
            )
    return columns, rows


def level_rows(
    comparison: Comparison, sampling: str
) -> tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]:
    """Columns and rows by level: accuracy in percent and calls of each variant, `96.0 ± 2.0 / 0.30`.

    `answers` are those asked for; a cell that rests on fewer says so.
    """
    variants = list(comparison.variants)
    levels = comparison.variants[variants[0]][sampling].levels
    rows: list[tuple[str | float | None, ...]] = []
    for level in levels:
        parts = [comparison.variants[variant][sampling].levels[level] for variant in variants]
        asked = parts[0]["answers"] + parts[0]["lost"]
        rows.append((level, asked, *map(_level_cell, parts)))
    return ("level", "answers", *variants), rows


def _level_cell(part: Mapping[str, Any]) -> str:
    if not has_figures(part):
        return f"refused ({part['lost']} lost)" if part["lost"] else "refused"
    cell = f"{_cell(part)} / {part['tool_calls']:.2f}"
    return f"{cell} ({part['lost']} lost)" if part["lost"] else cell


def tables(comparison: Comparison) -> list[Table]:
    """All tables that have rows, the main one first."""
    variants = comparison.variants
    made = [
        (_MAIN, overall_rows(comparison)),
        (tool_tables.BY_TOOL, tool_tables.tool_rows(variants)),
    ]
    for sampling in comparison.samplings:
        levels = level_rows(comparison, sampling)
        made.append((f"By level, {sampling}: accuracy % / calls", levels))
        by_tool = tool_tables.tool_level_rows(variants, sampling)
        made.append((f"By level and tool, {sampling}: calls", by_tool))
    return [
        Table(title=title, columns=columns, rows=tuple(rows))
        for title, (columns, rows) in made
        if rows
    ]


def print_tables(comparison: Comparison) -> None:
    """The tables on the console."""
    console = Console()
    for table in tables(comparison):
        title = f"Test set, {table.title.lower()}" if table.title == _MAIN else table.title
        shown = RichTable(title=title, title_justify="left")
        for column in table.columns:
            is_name = column in ("variant", "level", "tool", "sampling")
            shown.add_column(column, justify="left" if is_name else "right")
        for row in table.rows:
            shown.add_row(*map(str, row))
        console.print(shown)
    console.print(lost_note(comparison))


def lost_note(comparison: Comparison) -> str:
    """How many answers were lost, and to what, in a sentence."""
    parts = [both[way].overall for both in comparison.variants.values() for way in both]
    lost = sum(part["lost"] for part in parts)
    if not lost:
        return "No answer was lost."
    asked = lost + sum(part["answers"] for part in parts)
    lost_to: Counter[str] = sum((Counter(part["lost_to"]) for part in parts), Counter())
    who = lost_to_text(lost_to)
    return (
        f"{lost} of {asked} answers were lost{f' ({who})' * bool(who)}, also when asked again, and are in no "
        f"figure. A row that lost more than {comparison.max_lost_fraction:.1%} has none."
    )


def comparison_report(
    comparison: Comparison,
    *,
    title: str,
    subtitle: str,
    headlines: Sequence[Headline],
    metrics: Mapping[str, list[dict[str, float]]],
    views: Sequence[TrajectoryView],
    config: str,
) -> Report:
    """Tables, accuracy over calls, training curves of the variants and trajectories of training and test."""
    shown = tuple(tables(comparison))
    by_tool = f"{tool_tables.NOTE} " if len(tool_tables.tools_of(comparison.variants)) > 1 else ""
    note = (
        "Accuracy in percent ± one standard error. TC: calls that got an observation, per answer. "
        f"TP: correct answers per call (OTC-PO, section 2.1). {by_tool}{lost_note(comparison)}"
    )
    results = Section(
        title="Untouched test set",
        note=note,
        tables=shown,
        curves=pictures_of_evaluations(comparison.variants),
    )
    return Report(
        title=title,
        subtitle=subtitle,
        variants=tuple(comparison.variants),
        headlines=tuple(headlines),
        sections=(results, *metric_sections(dict(metrics))),
        trajectories=(*comparison.views, *views),
        config=config,
    )
