"""What the runs of a sweep came to: a mean with a t-interval over seeds for each point, as JSON, table and page.

A run's figure is the mean of the last tenth of the steps that have the metric. Only finished runs count. Seeds are the
units of an interval. Points share their seeds, so each point is also compared with the first one seed by seed. Not covered: figures on questions of a test (`experiments.evaluate` asks the policies).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from jaxtool.report.page import Curve, Report, Section, Series, Table
from jaxtool.report.run_page import edges
from jaxtool.rundir.metric_table import meaning_of
from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.rundir.run_listing import LAST_METRICS, read_run
from jaxtool.study.intervals import t_interval
from jaxtool.study.sweep import SweepJob, settings_of
from jaxtool.study.sweep_files import Sweep

_MOST_LINES = 12  # of a chart; more are told apart by nobody
_SHORT = {name: short for short, name in LAST_METRICS.items()}

Rows = Sequence[Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobResult:
    """A job and what its directory holds."""

    job: SweepJob
    state: str  # of `run_listing.State`, or "not begun"
    step: int
    rows: Rows  # of its metrics

    @property
    def is_done(self) -> bool:
        return self.job.is_done()

    def figure(self, metric: str) -> float | None:
        """None where the run has no finite value."""
        values = [row[metric] for row in self.rows if math.isfinite(row.get(metric, math.nan))]
        return edges(values)[1] if values else None


def results_of(jobs: Sequence[SweepJob]) -> list[JobResult]:
    """Reads the directories of the jobs."""
    return [_result(job) for job in jobs]


def _result(job: SweepJob) -> JobResult:
    if not job.workdir.is_dir():
        return JobResult(job=job, state="not begun", step=0, rows=())
    try:
        run = read_run(job.workdir)
    except FileNotFoundError:
        return JobResult(job=job, state="not begun", step=0, rows=())
    metrics = job.workdir / METRICS_NAME
    rows = read_metrics(metrics) if metrics.is_file() else ()
    return JobResult(job=job, state=run.state, step=run.step, rows=rows)


def as_json(sweep: Sweep, results: Sequence[JobResult]) -> dict[str, Any]:
    """{"settings", "jobs": [...], "points": {point: {metric: {"mean", "low", "high", "seeds": {seed: value}}}}, "differences"}.

    "differences" has of each point but the first the same figures less those of the first point, of their common seeds. Ends of the interval are null where fewer than two seeds have the figure.
    """
    by_seed = {
        (point.name, metric): _seeds(results, point.name, metric)
        for point in sweep.points
        for metric in sweep.metrics
    }
    first, *others = (point.name for point in sweep.points)
    return {
        "settings": settings_of(sweep) | {"file": sweep.file, "metrics": list(sweep.metrics)},
        "jobs": [
            {
                "job": one.job.name,
                "point": one.job.composed.point.name,
                "seed": one.job.seed,
                "workdir": str(one.job.workdir),
                "state": one.state,
                "is_done": one.is_done,
                "step": one.step,
                "steps": one.job.composed.steps,
                "metrics": {name: one.figure(name) for name in sweep.metrics},
            }
            for one in results
        ],
        "points": {
            point: {metric: figure(by_seed[point, metric]) for metric in sweep.metrics}
            for point in (first, *others)
        },
        "differences": {
            point: {
                metric: figure(_less(by_seed[point, metric], by_seed[first, metric]))
                for metric in sweep.metrics
            }
            for point in others
        },
    }


def figure(seeds: Mapping[int, float]) -> dict[str, Any]:
    """Mean and ends of the t-interval of 95 % of a figure by seed. 1, 2, 3 give 2 and -0.48..4.48."""
    values = list(seeds.values())
    mean = sum(values) / len(values) if values else None
    found = t_interval(values) if len(values) > 1 else None
    return {
        "mean": mean,
        "low": None if found is None else found.low,
        "high": None if found is None else found.high,
        "seeds": {str(seed): value for seed, value in seeds.items()},
    }


def _less(one: Mapping[int, float], other: Mapping[int, float]) -> dict[int, float]:
    """Differences of the seeds that both have."""
    return {seed: value - other[seed] for seed, value in one.items() if seed in other}


def _seeds(results: Sequence[JobResult], point: str, metric: str) -> dict[int, float]:
    return {
        one.job.seed: value
        for one in results
        if one.job.composed.point.name == point
        and one.is_done
        and (value := one.figure(metric)) is not None
    }


def point_table(found: Mapping[str, Any]) -> Table:
    """A line for each point; `found` is what `as_json` gives."""
    settings = found["settings"]
    shown = [
        metric
        for metric in settings["metrics"]
        if any(point[metric]["seeds"] for point in found["points"].values())
    ]
    rows = []
    for name, metrics in found["points"].items():
        jobs = [job for job in found["jobs"] if job["point"] == name]
        done = sum(job["is_done"] for job in jobs)
        rows.append((name, f"{done}/{len(jobs)}", *(_cell(metrics[one]) for one in shown)))
    meanings = " ".join(f"{_title(one)}: {meaning_of(one)}" for one in shown)
    return Table(
        title="Each point of the sweep",
        columns=("Point", "Finished", *map(_title, shown)),
        rows=tuple(rows),
        note="Mean over the seeds of finished runs, each the mean of the last tenth of its steps that have the "
        f"figure, with the t-interval of 95 %. {meanings} The best of many points looks better than it is: ask its "
        "policies on questions that chose nothing.",
    )


def tables(found: Mapping[str, Any]) -> tuple[Table, ...]:
    """Points, and their differences from the first one where there are any."""
    differences = difference_table(found)
    return (point_table(found), differences) if differences.rows else (point_table(found),)


def difference_table(found: Mapping[str, Any]) -> Table:
    """A line for each point but the first that has a seed in common with it."""
    shown = [
        metric
        for metric in found["settings"]["metrics"]
        if any(point[metric]["seeds"] for point in found["differences"].values())
    ]
    rows = [
        (name, *(_cell(metrics[one], "+") for one in shown))
        for name, metrics in found["differences"].items()
        if any(metrics[one]["seeds"] for one in shown)
    ]
    return Table(
        title=f"Less {next(iter(found['points']))}, seed by seed",
        columns=("Point", *map(_title, shown)),
        rows=tuple(rows),
        note="Mean over the seeds that both points have, with the t-interval of 95 % of the differences. One that leaves "
        "out zero is a difference; of twenty points without any, one interval is expected to leave it out.",
    )


def job_table(found: Mapping[str, Any]) -> Table:
    """A line for each job."""
    metrics = found["settings"]["metrics"]
    shown = [
        one for one in metrics if any(job["metrics"][one] is not None for job in found["jobs"])
    ]
    return Table(
        title="Each job",
        columns=("Job", "State", "Steps", *map(_title, shown)),
        rows=tuple(
            (
                *(job["job"], job["state"], f"{job['step']}/{job['steps']}"),
                *(job["metrics"][one] for one in shown),
            )
            for job in found["jobs"]
        ),
    )


def sweep_report(
    found: Mapping[str, Any], results: Sequence[JobResult], *, title: str, config: str
) -> Report:
    """The page: the tables, and each metric over the steps with a line for each point.

    Args:
      found: what `as_json` gives of `results`.
      config: gin text of the points.
    """
    settings = found["settings"]
    points = list(settings["points"])
    done = sum(job["is_done"] for job in found["jobs"])
    curves = tuple(
        curve
        for metric in settings["metrics"]
        if (curve := _curve(results, points[:_MOST_LINES], metric)).series
    )
    left = len(points) - _MOST_LINES
    note = f"The first {_MOST_LINES} points; {left} more are in the table." if left > 0 else ""
    figures = Section(title="figures", tables=(*tables(found), job_table(found)))
    training = Section(title="training", curves=curves, note=note)
    return Report(
        title=title,
        subtitle=f"{' + '.join(settings['run'])}: {len(points)} points, seeds "
        f"{', '.join(map(str, settings['seeds']))}; {done} of {len(found['jobs'])} jobs finished",
        variants=tuple(points),
        sections=(figures, training) if curves else (figures,),
        config=config,
    )


def _curve(results: Sequence[JobResult], points: Sequence[str], metric: str) -> Curve:
    series = []
    for point in points:
        runs = [one for one in results if one.job.composed.point.name == point and one.is_done]
        steps: dict[float, list[float]] = {}
        for row in (row for one in runs for row in one.rows):
            if math.isfinite(value := row.get(metric, math.nan)):
                steps.setdefault(row["step"], []).append(value)
        if steps:
            known = sorted(steps.items())
            series.append(
                Series(
                    name=point,
                    xs=[step for step, _ in known],
                    ys=[sum(values) / len(values) for _, values in known],
                )
            )
    note = f"{meaning_of(metric)} Mean over the seeds of finished runs."
    return Curve(title=_title(metric), x_label="step", y_label="", series=tuple(series), note=note)


def _title(metric: str) -> str:
    return _SHORT.get(metric, metric)


def _cell(value: Mapping[str, Any], sign: str = "") -> str:
    """`0.52 (0.41..0.63)`, with `sign` + of a difference `+0.52 (+0.41..+0.63)`; a dash where there is no figure."""
    if value["mean"] is None:
        return "–"
    mean, low, high = (
        None if value[name] is None else f"{value[name]:{sign}.3g}"
        for name in ("mean", "low", "high")
    )
    return f"{mean}" if low is None else f"{mean} ({low}..{high})"
