"""Variants of an experiment on one untouched test set: figures, paired differences, table, report.

The variants answer the same questions, so differences between them are taken question by question, over
those of which no side lost an answer, and their standard error is that of the paired difference. Every
table says how many answers it rests on; where too many were lost it says so in place of figures.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from jaxtool.core.types import Score, samples_of
from jaxtool.judges.references import check_references
from jaxtool.report.page import Headline, Report, Section, Table
from jaxtool.report.run_page import metric_sections
from jaxtool.rollout.lost import lost_to_text
from jaxtool.rollout.statistics import figures
from jaxtool.rollout.tool_figures import clustered_mean
from jaxtool.rundir.progress import progress_of
from jaxtool.rundir.trajectory_log import TrajectoryView, logged_views
from jaxtool.study import tool_tables
from jaxtool.study.accuracy_over_calls import pictures_of_evaluations
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import (
    GREEDY,
    Evaluation,
    Runner,
    evaluate,
    has_figures,
    lost_text,
)
from jaxtool.train.problem_sets import fitting
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import RolloutWorker, load_text, open_worker
from jaxtool.train.tool_checks import check_known_answers
from jaxtool.train.weights import check_same_model, weights_named

SAMPLINGS = ("greedy", "sampled")
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


def compare(
    config: RlConfig,
    policies: Mapping[str, str | Path],
    *,
    problems: int | None,
    seed: int,
    sandbox_addresses: tuple[str, ...] = (),
    search_addresses: tuple[str, ...] = (),
    samplings: Sequence[str] = SAMPLINGS,
) -> Comparison:
    """Every variant on questions of the test split: greedy, and one sample at `config.sampling`.

    The only place that touches the test split.

    Args:
      policies: names of weights (`weights_named`) by variant.
      problems: how many questions; None: all, where there is a last one.
      search_addresses: running search servers, in place of what `config.tools` name.
      samplings: of SAMPLINGS, in the order of the tables.
    """
    ways = {"greedy": GREEDY, "sampled": config.sampling}
    sources = {
        variant: weights_named(policy, config.policy) for variant, policy in policies.items()
    }
    first, source = next(iter(sources.items()))
    for variant, other in sources.items():
        check_same_model(variant, other.model_config(), first, source.model_config())
    variants: dict[str, dict[str, Evaluation]] = {}
    views: list[TrajectoryView] = []
    text = load_text(config)
    questions = fitting(
        config,
        config.task.problems("test", problems, seed),
        *text,
        "the test problems",
    )
    print(f"judge: {check_references(config.judge, questions)}", flush=True)
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        sharding, _ = make_shardings(config, source.model_config())
        worker, _ = open_worker(
            *(stack, runner, config, source, sharding, seed, sandbox_addresses),
            text=text,
            search_addresses=search_addresses,
        )
        for variant, other in sources.items():
            _, params = other.load(sharding, seed)
            worker.engine.load(params)
            if variant == first:
                with progress_of("compile decoder") as report:
                    worker.compile(report, *(ways[name] for name in samplings))
            variants[variant] = {
                name: evaluate(
                    worker.collector,
                    runner,
                    worker.judging,
                    questions,
                    samples=1,
                    sampling=ways[name],
                    seed=seed,
                    stream=("test",),
                    version=0,
                    max_lost_fraction=config.schedule.eval_max_lost_fraction,
                )
                for name in samplings
            }
            check_known_answers(worker, len(variants))
            views += _views(worker, variant, variants[variant][samplings[0]])
    return Comparison(
        variants=variants,
        views=tuple(views),
        max_lost_fraction=config.schedule.eval_max_lost_fraction,
    )


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


def _views(
    worker: RolloutWorker, variant: str, evaluation: Evaluation, count: int = 24
) -> list[TrajectoryView]:
    samples = [
        s
        if s.is_masked
        else dataclasses.replace(s, score=Score(reward=float(right), is_correct=right))
        for s in samples_of(evaluation.groups)
        for right in [bool(s.is_correct)]
    ]
    return logged_views(
        samples,
        count,
        variant=variant,
        step=None,
        token_text=worker.token_text,
        control_tokens=worker.tokenizer.control_tokens,
        advantages=None,
    )


def paired(new: Evaluation, old: Evaluation) -> dict[str, Any]:
    """What `new` changes against `old` on the questions of which both have every answer.

    Keys: `questions` and `questions_left_out` (one side lost an answer); `calls_cut` (share of old's calls
    saved), `calls_difference` (calls an answer, new less old) and `accuracy_difference_points`, each with its
    `_stderr` (paired over questions), `productivity_gain` (TP new / TP old - 1), and `by_tool`, those about calls
    for each tool. Only the first two where one side has no figures.
    """
    both = [
        (a, b) for a, b in zip(new.groups, old.groups, strict=True) if a.is_whole and b.is_whole
    ]
    rests_on: dict[str, Any] = {
        "questions": len(both),
        "questions_left_out": len(new.groups) - len(both),
    }
    if new.is_refused or old.is_refused or not both:
        return rests_on
    new_groups, old_groups = [a for a, _ in both], [b for _, b in both]
    pairs = list(zip(samples_of(new_groups), samples_of(old_groups), strict=True))
    questions = [a.trajectory.problem.problem_id for a, _ in pairs]
    right = [float(bool(a.is_correct)) - float(bool(b.is_correct)) for a, b in pairs]
    gap, error = clustered_mean(right, questions)
    calls = [float(a.trajectory.num_tool_calls - b.trajectory.num_tool_calls) for a, b in pairs]
    calls_gap, calls_error = clustered_mean(calls, questions)
    tools = sorted({*new.overall["by_tool"], *old.overall["by_tool"]})
    new_figures, old_figures = figures(new_groups, tools), figures(old_groups, tools)
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
