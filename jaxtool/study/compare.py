"""Variants of an experiment on one untouched test set: figures, paired differences, table, report.

The variants answer the same questions, so differences between them are taken question by question and
their standard error is that of the paired difference.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table as RichTable

from jaxtool.core.types import Score, samples_of
from jaxtool.report.page import Headline, Report, Section, Table, metric_sections
from jaxtool.rollout.statistics import clustered_mean
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.rundir.progress import progress_of
from jaxtool.rundir.trajectory_log import TrajectoryView, evenly_spaced_views
from jaxtool.train.devices import make_shardings
from jaxtool.train.evaluation import GREEDY, Evaluation, Runner, evaluate
from jaxtool.train.rl_config import RlConfig
from jaxtool.train.rollout_worker import RolloutWorker, open_worker

SAMPLINGS = ("greedy", "sampled")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """Evaluations by variant and way of sampling ("greedy", "sampled")."""

    variants: Mapping[str, Mapping[str, Evaluation]]
    views: tuple[TrajectoryView, ...]  # some greedy answers of every variant

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
    policies: Mapping[str, Path],
    *,
    problems: int,
    seed: int,
    sandbox_addresses: tuple[str, ...] = (),
) -> Comparison:
    """Every variant on `problems` questions of the test split: greedy, and one sample at `config.sampling`.

    The only place that touches the test split.
    """
    first = next(iter(policies.values()))
    variants: dict[str, dict[str, Evaluation]] = {}
    views: list[TrajectoryView] = []
    with ExitStack() as stack:
        runner = stack.enter_context(Runner())
        source = SavedPolicy(path=str(first))
        sharding, _ = make_shardings(config, source.model_config())
        worker, _ = open_worker(stack, runner, config, source, sharding, seed, sandbox_addresses)
        questions = config.task.problems("test", problems, seed)
        for variant, policy in policies.items():
            _, params = SavedPolicy(path=str(policy)).load(sharding, seed)
            worker.engine.load(params)
            if variant == next(iter(policies)):
                with progress_of("compile decoder") as report:
                    worker.compile(report, GREEDY, config.sampling)
            variants[variant] = {
                name: evaluate(
                    worker.collector,
                    runner,
                    worker.checker,
                    questions,
                    samples=1,
                    sampling=GREEDY if name == "greedy" else config.sampling,
                    seed=seed,
                    stream=("test",),
                    version=0,
                )
                for name in SAMPLINGS
            }
            views += _views(worker, variant, variants[variant]["greedy"])
    return Comparison(variants=variants, views=tuple(views))


def _views(
    worker: RolloutWorker, variant: str, evaluation: Evaluation, count: int = 24
) -> list[TrajectoryView]:
    samples = [
        dataclasses.replace(s, score=Score(reward=float(right), is_correct=right))
        for s in samples_of(evaluation.groups)
        for right in [bool(s.is_correct)]
    ]
    return evenly_spaced_views(
        samples,
        count,
        variant=variant,
        step=None,
        token_text=worker.token_text,
        control_tokens=worker.tokenizer.control_tokens,
        advantages=None,
    )


def paired(new: Evaluation, old: Evaluation) -> dict[str, float | None]:
    """What `new` changes against `old` on the same questions.

    Keys: `calls_cut` (share of old's calls saved), `accuracy_difference_points` and its `_stderr`
    (paired over questions, in percentage points), `productivity_gain` (TP new / TP old - 1).
    """
    pairs = [
        (float(bool(a.is_correct)) - float(bool(b.is_correct)), a.trajectory.problem.problem_id)
        for a, b in zip(samples_of(new.groups), samples_of(old.groups), strict=True)
        if not a.is_masked and not b.is_masked
    ]
    gap, error = clustered_mean([g for g, _ in pairs], [question for _, question in pairs])
    old_calls, new_calls = old.overall["tool_calls"], new.overall["tool_calls"]
    old_tp, new_tp = old.overall["tool_productivity"], new.overall["tool_productivity"]
    return {
        "calls_cut": 1 - new_calls / old_calls if old_calls else None,
        "accuracy_difference_points": 100 * gap,
        "accuracy_difference_points_stderr": 100 * error,
        "productivity_gain": new_tp / old_tp - 1 if new_tp and old_tp else None,
    }


def _cell(part: Mapping[str, Any]) -> str:
    return f"{100 * part['accuracy']:.1f} ± {100 * part['accuracy_stderr']:.1f}"


def overall_rows(
    comparison: Comparison,
) -> tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]:
    """Columns and rows of the main table: one row per variant and way of sampling."""
    columns = ("variant", "sampling", "accuracy %", "calls (TC)", "productivity (TP)")
    rows: list[tuple[str | float | None, ...]] = []
    for variant, both in comparison.variants.items():
        for sampling, evaluation in both.items():
            whole = evaluation.overall
            tp = whole["tool_productivity"]
            calls = f"{whole['tool_calls']:.2f} ± {whole['tool_calls_stderr']:.2f}"
            rows.append(
                (variant, sampling, _cell(whole), calls, "–" if tp is None else f"{tp:.2f}")
            )
    return columns, rows


def level_rows(
    comparison: Comparison, sampling: str
) -> tuple[tuple[str, ...], list[tuple[str | float | None, ...]]]:
    """Columns and rows by level: accuracy in percent and calls of each variant, `96.0 ± 2.0 / 0.30`."""
    variants = list(comparison.variants)
    levels = comparison.variants[variants[0]][sampling].levels
    rows: list[tuple[str | float | None, ...]] = []
    for level in levels:
        parts = [comparison.variants[variant][sampling].levels[level] for variant in variants]
        cells = [f"{_cell(part)} / {part['tool_calls']:.2f}" for part in parts]
        rows.append((level, levels[level]["answers"], *cells))
    return ("level", "answers", *variants), rows


def print_tables(comparison: Comparison) -> None:
    """Both tables on the console."""
    console = Console()
    for title, (columns, rows) in (
        ("Test set, all levels", overall_rows(comparison)),
        ("By level, greedy: accuracy % / calls", level_rows(comparison, "greedy")),
        ("By level, sampled: accuracy % / calls", level_rows(comparison, "sampled")),
    ):
        table = RichTable(title=title, title_justify="left")
        for column in columns:
            table.add_column(
                column, justify="left" if column in ("variant", "level", "sampling") else "right"
            )
        for row in rows:
            table.add_row(*map(str, row))
        console.print(table)


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
    """Tables, training curves of the variants and trajectories of training and test."""
    columns, rows = overall_rows(comparison)
    tables = [Table(title="All levels", columns=columns, rows=tuple(rows))]
    for sampling in SAMPLINGS:
        columns, rows = level_rows(comparison, sampling)
        tables.append(
            Table(
                title=f"By level, {sampling}: accuracy % / calls", columns=columns, rows=tuple(rows)
            )
        )
    note = (
        "Accuracy in percent ± one standard error. TC: calls that got an observation, per answer. "
        "TP: correct answers per call (OTC-PO, section 2.1)."
    )
    results = Section(title="Untouched test set", note=note, tables=tuple(tables))
    return Report(
        title=title,
        subtitle=subtitle,
        variants=tuple(comparison.variants),
        headlines=tuple(headlines),
        sections=(results, *metric_sections(dict(metrics))),
        trajectories=(*comparison.views, *views),
        config=config,
    )
