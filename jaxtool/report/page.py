"""Writes the report of a run: one HTML file with tables, curves and a trajectory viewer.

The file needs no network and no other file. Everything in it that a policy or a tool wrote is
data: it is escaped here, shown as text by the page, and the page's policy allows no script but
our own. `python -m jaxtool.report WORKDIR` rebuilds a report from a run's files.

Not covered: what belongs into a run's own report beyond its files (results.json); the caller adds
it as tables.
"""

import base64
import dataclasses
import datetime
import hashlib
import html
import importlib.resources
import json
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from jaxtool.config.record import RECORD_NAME
from jaxtool.core.bucket_names import check_local
from jaxtool.core.files import write_text
from jaxtool.rundir.metrics import METRICS_NAME, read_metrics
from jaxtool.rundir.trajectory_log import (
    TRAJECTORIES_NAME,
    TrajectoryView,
    read_trajectories,
    view_to_row,
)

REPORT_NAME = "report.html"
MAX_POINTS = 800  # of a series: more than a screen has columns for one chart
MAX_TRAJECTORIES = 400  # of a rebuilt report: a page of some megabytes
_SCRIPTS = ("dom.js", "charts.js", "viewer.js", "page.js")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Headline:
    """One large figure at the top."""

    label: str
    value: str
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | int | None, ...], ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Series:
    """One line; a y of None or nan is a gap."""

    name: str  # the name of a variant takes the variant's colour
    xs: Sequence[float]
    ys: Sequence[float | None]
    stderr: Sequence[float | None] | None = None  # drawn as a band of ± one standard error


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    title: str
    x_label: str
    y_label: str
    series: tuple[Series, ...]
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Section:
    title: str
    note: str = ""
    tables: tuple[Table, ...] = ()
    curves: tuple[Curve, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    title: str
    subtitle: str = ""
    variants: tuple[str, ...] = ()  # in the order of their colours
    headlines: tuple[Headline, ...] = ()
    sections: tuple[Section, ...] = ()
    trajectories: tuple[TrajectoryView, ...] = ()
    config: str = ""  # gin text

    def check(self) -> None:
        """Raises ValueError if lengths do not agree, naming the table or series."""
        for section in self.sections:
            for table in section.tables:
                widths = {len(row) for row in table.rows} - {len(table.columns)}
                if widths:
                    raise ValueError(
                        f"table {table.title!r}: {len(table.columns)} columns, rows of {widths}"
                    )
            for curve in section.curves:
                for series in curve.series:
                    lengths = {len(series.xs), len(series.ys)}
                    lengths |= set() if series.stderr is None else {len(series.stderr)}
                    if len(lengths) > 1:
                        raise ValueError(
                            f"curve {curve.title!r}, series {series.name!r}: xs, ys and stderr "
                            f"have lengths {sorted(lengths)}"
                        )


def write_report(path: str | pathlib.Path, report: Report) -> pathlib.Path:
    """Writes the page in one atomic replacement and returns its path."""
    report.check()
    check_local(path, "the report")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_text(path, _page(report))


def _page(report: Report) -> str:
    script = "(() => {\n'use strict';\n" + "\n".join(map(_template, _SCRIPTS)) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "title": html.escape(report.title),
        "script_hash": f"sha256-{digest}",
        "style": _template("report.css"),
        "script": script,
        "data": _json_for_html(_page_data(report)),
    }
    # One pass, so that data which looks like a placeholder stays data.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("report.html"))


def _template(name: str) -> str:
    folder = importlib.resources.files("jaxtool.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _page_data(report: Report) -> dict[str, Any]:
    now = datetime.datetime.now().astimezone()
    return {
        "title": report.title,
        "subtitle": report.subtitle,
        "written": now.strftime("%Y-%m-%d %H:%M %Z"),
        "variants": report.variants,
        "headlines": [dataclasses.asdict(headline) for headline in report.headlines],
        "sections": [dataclasses.asdict(section) for section in report.sections],
        "trajectories": [view_to_row(view) for view in report.trajectories],
        "config": report.config,
    }


def _json_for_html(value: Any) -> str:
    """JSON that ends no script element and starts no comment, whatever its strings hold."""
    text = json.dumps(_without_nan(value), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


def report_of_workdir(workdir: str | pathlib.Path) -> Report:
    """The report that the files of a run hold.

    A run directory is one variant; a directory of run directories is a comparison of variants.

    Raises:
      FileNotFoundError: if there is no metrics.jsonl in either place.
    """
    workdir = pathlib.Path(workdir).resolve()
    folders = [workdir, *sorted(path for path in workdir.glob("*") if path.is_dir())]
    runs = {folder.name: folder for folder in folders if (folder / METRICS_NAME).exists()}
    if not runs:
        raise FileNotFoundError(
            f"{workdir} holds no {METRICS_NAME}, nor do its folders; give a run's --workdir"
        )
    rows = {variant: read_metrics(folder / METRICS_NAME) for variant, folder in runs.items()}
    views = [
        view
        for folder in runs.values()
        if (folder / TRAJECTORIES_NAME).exists()
        for view in read_trajectories(folder / TRAJECTORIES_NAME)
    ]
    records = [folder / RECORD_NAME for folder in runs.values()]
    config = "\n".join(
        f"# {record.parent.name}\n{record.read_text(encoding='utf-8')}"
        for record in records
        if record.exists()
    )
    stride = math.ceil(len(views) / MAX_TRAJECTORIES) or 1
    shown = views[::stride]
    steps = max((row["step"] for variant_rows in rows.values() for row in variant_rows), default=0)
    return Report(
        title=workdir.name,
        subtitle=f"{', '.join(runs)}: {steps} steps, {len(shown)} of {len(views)} trajectories",
        variants=tuple(runs),
        sections=metric_sections(rows),
        trajectories=tuple(shown),
        config=config,
    )


def metric_sections(rows: dict[str, list[dict[str, float]]]) -> tuple[Section, ...]:
    """One section per area, one curve per metric, one line per variant.

    Metrics area/name/part are one curve with a line per part for one variant, and one curve per part
    for several.

    Args:
      rows: variant -> rows of its metrics file.
    """
    is_one_variant = len(rows) == 1
    lines: dict[str, dict[str, dict[str, Series]]] = {}  # area -> curve -> line -> series
    for variant, variant_rows in rows.items():
        names = {name: None for row in variant_rows for name in row if "/" in name}
        for name in names:
            area, metric, *part = name.split("/")
            curve = metric if is_one_variant or not part else f"{metric} · {part[0]}"
            line = part[0] if is_one_variant and part else variant
            points = [(row["step"], row[name]) for row in variant_rows if name in row]
            series = _thinned(line, points, MAX_POINTS)
            lines.setdefault(area, {}).setdefault(curve.replace("_", " "), {})[line] = series
    return tuple(
        Section(
            title=area.replace("_", " "),
            curves=tuple(
                Curve(title=title, x_label="step", y_label="", series=tuple(series.values()))
                for title, series in curves.items()
            ),
        )
        for area, curves in sorted(lines.items())
    )


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
