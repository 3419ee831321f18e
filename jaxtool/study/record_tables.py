"""Figures, tables and page of a finished evaluation, out of its work directory.

Numbers are read chunk by chunk and without texts, so memory holds a few numbers an answer. Not covered: the equations
(`jaxtool.rollout.answer_equations`), the tables that a comparison in memory has as well (`comparison_tables`).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from jaxtool.config.loader import operative_config
from jaxtool.judges.same_answer import same_by
from jaxtool.report.page import AnswerFile, Report, Section, Table, write_report
from jaxtool.rollout.judged_answers import JudgedAnswer, of_records
from jaxtool.rundir.answer_files import (
    Condition,
    EvaluationSettings,
    answer_paths,
    iterate_answers,
    read_settings,
)
from jaxtool.study.answer_figures import AnswerFigures, Figure, figures_of, table_of
from jaxtool.study.behaviour import Behaviour, behaviour_of
from jaxtool.study.comparison_tables import Comparison, comparison_report
from jaxtool.study.paired import paired
from jaxtool.train.evaluation import Evaluation, evaluation_of_answers
from jaxtool.train.rl_config import RlConfig

_NARROWEST = 140  # columns of a table that goes to a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """What a work directory says."""

    settings: EvaluationSettings
    comparison: Comparison
    figures: Mapping[
        str, Mapping[str, AnswerFigures]
    ]  # by policy, then by way; refused ones are not there
    behaviour: Behaviour
    files: tuple[AnswerFile, ...]  # of all answers, in order

    def as_json(self) -> dict[str, Any]:
        """{"variants", "paired", "figures", "behaviour", "settings"}, as the docstring of `experiments.evaluate` lists them."""
        variants = self.comparison.variants
        first, *others = variants
        return self.comparison.as_json() | {
            "paired": {
                name: {
                    way: paired(variants[name][way], variants[first][way]) for way in variants[name]
                }
                for name in others
            },
            "settings": dataclasses.asdict(self.settings),
            "figures": {
                policy: {way: figures_json(one) for way, one in ways.items()}
                for policy, ways in self.figures.items()
            },
            "behaviour": self.behaviour.as_json(),
        }


def results_of(workdir: str | Path, ks: Sequence[int] | None = None) -> EvaluationResults:
    """Everything that tables show of a finished evaluation.

    Args:
      ks: of pass@k and maj@k; None: 1, 2, 4, ... up to the samples.

    Raises:
      FileNotFoundError, ValueError: as `answer_files.read_answers`; or a k is larger than the samples.
    """
    settings = read_settings(workdir)
    same = same_by(settings.judge)
    variants: dict[str, dict[str, Evaluation]] = {}
    figures: dict[str, dict[str, AnswerFigures]] = {}
    for policy in settings.policies:
        variants[policy], figures[policy] = {}, {}
        for condition in settings.conditions:
            # The numbers of one condition, a few hundred bytes an answer.
            slim = [
                record
                for part in iterate_answers(workdir, policy, condition, has_texts=False)
                for record in part
            ]
            way = way_of(settings, condition)
            tools = settings.tools if condition.has_tools else ()
            answers: list[JudgedAnswer] = of_records(slim)
            evaluation = evaluation_of_answers(answers, settings.max_lost_fraction, tools)
            variants[policy][way] = evaluation
            if not evaluation.is_refused:
                # A greedy policy has one answer to each question.
                own = (
                    None
                    if ks is None
                    else [k for k in ks if k <= condition.samples(settings.samples)]
                )
                figures[policy][way] = figures_of(table_of(slim), same, ks=own, seed=settings.seed)
    comparison = Comparison(
        variants=variants, views=(), max_lost_fraction=settings.max_lost_fraction
    )
    return EvaluationResults(
        settings=settings,
        comparison=comparison,
        figures=figures,
        behaviour=behaviour_of(workdir),
        files=tuple(AnswerFile(path=path) for path in answer_paths(workdir)),
    )


def way_of(settings: EvaluationSettings, condition: Condition) -> str:
    """What a condition is called in tables: "greedy" or "sampled" where nothing else is varied."""
    ways = {(one.has_tools, one.max_tool_calls) for one in settings.conditions}
    return condition.sampling if len(ways) == 1 else condition.name


def figures_json(figures: AnswerFigures) -> dict[str, Any]:
    """Fields of `AnswerFigures`; each figure is {"value", "low", "high", "over"}."""
    return dataclasses.asdict(figures)


def figure_tables(results: EvaluationResults) -> list[Table]:
    """Accuracy, calls, and pass@k with maj@k by k, a row for each policy and way; none where all are refused."""
    rows = [
        ((policy, way, str(one.samples)), one)
        for policy, by_way in results.figures.items()
        for way, one in by_way.items()
    ]
    if not rows:
        return []
    names = ("variant", "sampling", "k")
    has_scores = any(abs(one.score.value - one.accuracy.value) > 1e-12 for _, one in rows)
    ks = sorted({k for _, one in rows for k in one.pass_at})
    accuracy = Table(
        title="Accuracy with intervals of 95 %",
        columns=(
            *(*names, "answers", "avg@k %", "same questions", "pass@k %", "maj@k %"),
            *["score (F1) %"] * has_scores,
        ),
        rows=tuple(
            (
                *(*row, str(one.answers), _percent(one.accuracy), _ends(one.accuracy_of_these)),
                *(
                    _percent(one.pass_at.get(one.samples)),
                    _percent(one.majority_at.get(one.samples)),
                ),
                *[_percent(one.score)] * has_scores,
            )
            for row, one in rows
        ),
    )
    calls = Table(
        title="Calls and tokens with intervals of 95 %",
        columns=(*names, "calls (TC)", "productivity (TP)", "TP of right answers", "tokens"),
        rows=tuple(
            (
                *(*row, _plain(one.tool_calls), _plain(one.tool_productivity)),
                *(_plain(one.tool_productivity_of_right), _plain(one.policy_tokens, 0)),
            )
            for row, one in rows
        ),
    )
    by_k = Table(
        title="By k: pass@k % / maj@k %",
        columns=("variant", "sampling", *(f"k = {k}" for k in ks)),
        rows=tuple(
            (*row[:2], *(_pair(one, k) for k in ks)) for row, one in rows if len(one.pass_at) > 1
        ),
    )
    return [accuracy, calls, *([by_k] if by_k.rows else [])]


NOTE = (
    "Intervals of avg@k, TC and TP: other questions of the same kind, sampled anew (two-level bootstrap). Of pass@k "
    "and maj@k: other questions. 'same questions': these questions, sampled anew. docs/evaluate.md defines every figure."
)


def print_figures(results: EvaluationResults) -> None:
    """The tables on the console; nothing where every row is refused."""
    tables = figure_tables(results)
    _print(tables)
    if tables:
        Console().print(NOTE, highlight=False, soft_wrap=True)


def print_behaviour(results: EvaluationResults) -> None:
    """The tables of behaviour on the console."""
    _print(results.behaviour.tables())


def _print(tables: Sequence[Table]) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(console.width, _NARROWEST))
    for table in tables:
        shown = RichTable(title=table.title, title_justify="left")
        for number, column in enumerate(table.columns):
            # A long name goes on in the next line: it is never cut.
            justify = "left" if number < 2 else "right"
            shown.add_column(column, justify=justify, overflow="fold")
        for row in table.rows:
            shown.add_row(*map(str, row))
        console.print(shown)
        if table.note:
            console.print(table.note, highlight=False, soft_wrap=True)


def write_page(path: Path, results: EvaluationResults, config: RlConfig, subtitle: str) -> Path:
    """Tables and every answer as a page."""
    return write_report(path, evaluation_report(results, config, subtitle))


def evaluation_report(results: EvaluationResults, config: RlConfig, subtitle: str) -> Report:
    """The page: accuracy over calls, tables with intervals, behaviour, every answer."""
    report = comparison_report(
        results.comparison,
        title="Evaluation",
        subtitle=subtitle,
        headlines=(),
        metrics={},
        views=(),
        config=operative_config(config),
    )
    figures = Section(title="Intervals", note=NOTE, tables=tuple(figure_tables(results)))
    behaviour = Section(
        title="Behaviour",
        note="How the policies use their tools. docs/behaviour.md defines every measure, and says what it does not say.",
        tables=results.behaviour.tables(),
        curves=results.behaviour.curves(),
    )
    sections = (report.sections[0], figures, behaviour, *report.sections[1:])
    return dataclasses.replace(report, sections=sections, answer_files=results.files)


def _percent(figure: Figure | None) -> str:
    return "–" if figure is None else f"{100 * figure.value:.1f} [{_ends(figure)}]"


def _ends(figure: Figure) -> str:
    return f"{100 * figure.low:.1f}..{100 * figure.high:.1f}"


def _plain(figure: Figure | None, digits: int = 2) -> str:
    if figure is None:
        return "–"
    return f"{figure.value:.{digits}f} [{figure.low:.{digits}f}..{figure.high:.{digits}f}]"


def _pair(figures: AnswerFigures, k: int) -> str:
    if k not in figures.pass_at:
        return "–"
    return f"{100 * figures.pass_at[k].value:.1f} / {100 * figures.majority_at[k].value:.1f}"
