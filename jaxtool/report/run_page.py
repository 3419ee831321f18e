"""The report that a directory makes: of a run, of several runs side by side, or of an evaluation.

First what everybody asks (accuracy, calls, reward, tokens) and what it means, then the other metrics, folded, each
with its line from `metric_table`; those that never changed are a table at the end. Not covered: differences between
two policies and their intervals.
"""

import collections
import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

from jaxtool.config.record import RECORD_NAME
from jaxtool.report.page import AnswerFile, Curve, Headline, Report, Section, Series, Table
from jaxtool.rundir.answer_records import AnswerRecord, read_records
from jaxtool.rundir.metric_table import meaning_of
from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.rundir.trajectory_log import TRAJECTORIES_NAME

ANSWERS = "answers"
MAX_POINTS = 800  # of a series: more than a screen has columns for one chart
# The first screen: what a figure is called there, and the metrics that can give it, the best first.
FIRST = {
    "Accuracy": ("validation/accuracy_fraction", "reward/accuracy_fraction"),
    "Calls of an answer": ("tools/calls_per_answer", "validation/calls_per_answer"),
    "Reward": ("reward/mean",),
    "Tokens of an answer": ("tokens/response_mean",),
    "Loss": ("sft/loss_nats",),
}
_EDGE = 0.1  # share of the steps that a figure "at the start" or "at the end" is the mean of

Rows = Sequence[Mapping[str, float]]


def report_of_workdir(workdir: str | pathlib.Path) -> Report:
    """The report that the files of a directory hold.

    A run directory is one variant; a directory of run directories is a comparison of variants; a directory with
    answers/ is an evaluation, finished or not, and one of such directories shows them on the same questions.

    Raises:
      FileNotFoundError: there is neither metrics.jsonl nor a file of answers.
      ValueError: a file is damaged; names it.
    """
    workdir = pathlib.Path(workdir).resolve()
    folders = [workdir, *sorted(path for path in workdir.glob("*") if path.is_dir())]
    runs = {folder.name: folder for folder in folders if (folder / METRICS_NAME).exists()}
    if runs:
        return _report_of_runs(workdir, runs)
    files = {folder.name: sorted((folder / ANSWERS).rglob("*.parquet")) for folder in folders}
    if any(files.values()):
        return _report_of_answers(workdir, {name: found for name, found in files.items() if found})
    raise FileNotFoundError(
        f"{workdir} holds no {METRICS_NAME} and no {ANSWERS}/, nor do its folders; give the --workdir of a run or "
        "of an evaluation"
    )


def _report_of_runs(workdir: pathlib.Path, runs: Mapping[str, pathlib.Path]) -> Report:
    rows = {variant: read_metrics(folder / METRICS_NAME) for variant, folder in runs.items()}
    records = [folder / RECORD_NAME for folder in runs.values()]
    config = "\n".join(
        f"# {record.parent.name}\n{record.read_text(encoding='utf-8')}"
        for record in records
        if record.exists()
    )
    steps = max(len({row["step"] for row in of_variant}) for of_variant in rows.values())
    return Report(
        title=workdir.name,
        subtitle=f"{', '.join(runs)}: {steps} step{'' if steps == 1 else 's'} with metrics",
        variants=tuple(runs),
        headlines=headlines(next(iter(rows.values()))) if len(rows) == 1 else (),
        sections=metric_sections(rows),
        logs=tuple(
            folder / TRAJECTORIES_NAME
            for folder in runs.values()
            if (folder / TRAJECTORIES_NAME).exists()
        ),
        config=config,
    )


def _report_of_answers(
    workdir: pathlib.Path, files: Mapping[str, Sequence[pathlib.Path]]
) -> Report:
    """Args: files: by the name of the evaluation, which the policies' names begin with if there are several."""
    prefix = "{}:" if len(files) > 1 else ""
    shown = [
        AnswerFile(path=path, prefix=prefix.format(evaluation))
        for evaluation, paths in files.items()
        for path in paths
    ]
    records = [
        dataclasses.replace(record, policy=file.prefix + record.policy)
        for file in shown
        for record in read_records(file.path, has_texts=False)
    ]
    policies = dict.fromkeys(record.policy for record in records)
    questions = len({record.problem_id for record in records})
    return Report(
        title=workdir.name,
        subtitle=f"{len(records):,} answers of {', '.join(policies)} to {questions} question{'' if questions == 1 else 's'}",
        variants=tuple(policies),
        sections=(Section(title="figures", tables=(answer_table(records),)),),
        answer_files=tuple(shown),
    )


def answer_table(records: Sequence[AnswerRecord]) -> Table:
    """Means of each policy under each condition, without the answers that were lost."""
    parts: dict[tuple[str, str], list[AnswerRecord]] = collections.defaultdict(list)
    for record in records:
        tools = f"{record.max_tool_calls} calls" if record.has_tools else "no tools"
        parts[record.policy, f"{record.sampling}, {tools}"].append(record)
    rows = []
    for (policy, condition), part in parts.items():
        kept = [record for record in part if not record.is_lost]
        rows.append(
            (
                *(policy, condition, len(kept), len(part) - len(kept)),
                _mean([100.0 * record.is_correct for record in kept]),
                _mean([record.num_calls for record in kept]),
                _mean([record.policy_tokens + record.tool_tokens for record in kept]),
            )
        )
    return Table(
        title="Each policy under each condition",
        columns=("Policy", "Condition", "Answers", "Lost", "Accuracy, %", "Calls", "Tokens"),
        rows=tuple(rows),
        note="Accuracy: share of the answers that the judge calls right. Calls: those that got an output, of an "
        "answer. Tokens: of an answer, with the tool's output. Lost: the infrastructure failed; such answers are "
        "in no mean.",
    )


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None


def first_metrics(names: Sequence[str]) -> dict[str, str]:
    """What stands on the first screen, by title, of the metrics that are there."""
    found = {title: [name for name in wanted if name in names] for title, wanted in FIRST.items()}
    return {title: present[0] for title, present in found.items() if present}


def headlines(rows: Rows) -> tuple[Headline, ...]:
    """The last value of each figure of the first screen, the first one, and what it means.

    Each is the mean of the first or last tenth of the steps that have it.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    found = []
    for title, name in first_metrics(names).items():
        values = [row[name] for row in rows if name in row and math.isfinite(row[name])]
        if not values:
            continue
        start, end = edges(values)
        change = f" {_shown(start)} in the first steps." if len(values) > 1 else ""
        found.append(Headline(label=title, value=_shown(end), note=f"{meaning_of(name)}{change}"))
    return tuple(found)


def edges(values: Sequence[float]) -> tuple[float, float]:
    """Means of the first and of the last tenth of some values, of one at least: 1, 2, 3 have the edges 1 and 3."""
    size = max(1, int(_EDGE * len(values)))
    return sum(values[:size]) / size, sum(values[-size:]) / size


def _shown(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def metric_sections(rows: Mapping[str, Rows]) -> tuple[Section, ...]:
    """The first screen's curves, one folded section per area, and the metrics that never changed.

    Metrics area/name/part are one curve with a line per part for one variant, and one curve per part for several.

    Args:
      rows: variant -> rows of its metrics file.
    """
    names = list(
        dict.fromkeys(n for of_variant in rows.values() for row in of_variant for n in row)
    )
    first = first_metrics(names)
    curves: dict[str, dict[str, _Lines]] = {}  # area -> title -> lines
    constants: list[tuple[str, float, str]] = []
    for name in names:
        if "/" not in name:
            continue
        points = {variant: _points(of_variant, name) for variant, of_variant in rows.items()}
        points = {variant: known for variant, known in points.items() if known}
        values = {y for known in points.values() for _, y in known if math.isfinite(y)}
        several = max((len(known) for known in points.values()), default=0) > 1
        if len(values) == 1 and several and name not in first.values():
            constants.append((name, next(iter(values)), meaning_of(name)))
            continue
        area, metric, *part = name.split("/")
        is_one = len(rows) == 1
        title = metric if is_one or not part else f"{metric} · {part[0]}"
        lines = curves.setdefault(area, {}).setdefault(title.replace("_", " "), _Lines())
        lines.meanings[meaning_of(name)] = None
        for variant, known in points.items():
            line = part[0] if is_one and part else variant
            lines.series.append(_thinned(line, known, MAX_POINTS))
    return (*_first_section(rows, first), *_area_sections(curves), *_constant_section(constants))


class _Lines:
    """A curve on its way: what its metrics mean, each once, and its lines."""

    def __init__(self) -> None:
        self.meanings: dict[str, None] = {}
        self.series: list[Series] = []

    @property
    def note(self) -> str:
        return " ".join(filter(None, self.meanings))


def _first_section(rows: Mapping[str, Rows], first: Mapping[str, str]) -> tuple[Section, ...]:
    curves = tuple(
        Curve(
            title=title,
            x_label="step",
            y_label="",
            series=tuple(
                _thinned(variant, points, MAX_POINTS)
                for variant, of_variant in rows.items()
                if (points := _points(of_variant, name))
            ),
            note=meaning_of(name),
        )
        for title, name in first.items()
    )
    return (Section(title="training", curves=curves),) if curves else ()


def _area_sections(curves: Mapping[str, Mapping[str, _Lines]]) -> tuple[Section, ...]:
    return tuple(
        Section(
            title=area.replace("_", " "),
            curves=tuple(
                Curve(
                    title=title,
                    x_label="step",
                    y_label="",
                    series=tuple(lines.series),
                    note=lines.note,
                )
                for title, lines in of_area.items()
            ),
            is_folded=True,
        )
        for area, of_area in sorted(curves.items())
    )


def _constant_section(constants: Sequence[tuple[str, float, str]]) -> tuple[Section, ...]:
    if not constants:
        return ()
    table = Table(title="", columns=("Metric", "Value", "Meaning"), rows=tuple(constants))
    note = "Metrics that had one value in all steps."
    return (Section(title="constants", note=note, tables=(table,), is_folded=True),)


def _points(rows: Rows, name: str) -> list[tuple[float, float]]:
    return [(row["step"], row[name]) for row in rows if name in row]


def _thinned(name: str, points: list[tuple[float, float]], limit: int) -> Series:
    """At most `limit` points, each the mean of its neighbours; a bucket of nan stays a gap."""
    size = math.ceil(len(points) / limit)
    buckets = [points[start : start + size] for start in range(0, len(points), max(size, 1))]
    xs, ys = [], []
    for bucket in buckets:
        known = [y for _, y in bucket if math.isfinite(y)]
        xs.append(bucket[-1][0])
        ys.append(sum(known) / len(known) if known else None)
    return Series(name=name, xs=xs, ys=ys)
