"""Writes a report: an HTML page with tables, curves and a viewer of answers.

The page needs no network. A page of many answers has their text in a folder beside it (`jaxtool.report.chunks`).
Everything that a policy or a tool wrote is data: it is escaped here, shown as text by the page, and the page's policy
allows no script but our own and what our own script loads from that folder.

Not covered: which report a directory of runs or answers makes (`jaxtool.report.run_page`).
"""

import base64
import dataclasses
import datetime
import hashlib
import html
import importlib.resources
import itertools
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jaxtool.core.bucket_names import check_local
from jaxtool.core.files import write_text
from jaxtool.report.answer_pairs import AnswerPair
from jaxtool.report.chunks import Chunked, chunked, folder_of, remove_others, write_beside
from jaxtool.report.safe_json import json_for_html
from jaxtool.report.table_files import slug, table_csv, table_latex
from jaxtool.report.viewer_rows import ViewerRow, row_of_record, row_of_view
from jaxtool.rundir import jsonl
from jaxtool.rundir.answer_records import AnswerRecord, read_records
from jaxtool.rundir.trajectory_log import TrajectoryView, view_to_row

REPORT_NAME = "report.html"
_SCRIPTS = (
    *(
        "dom.js",
        "colors.js",
        "saving.js",
        "charts.js",
        "pairs.js",
        "rows.js",
        "chunks.js",
        "timeline.js",
        "reading.js",
    ),
    *("tokens.js", "list.js", "viewer.js", "page.js"),
)


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
    # Ends of an interval around each point, on either axis, drawn as bars; None: there is none to show.
    x_intervals: Sequence[tuple[float, float] | None] | None = None
    y_intervals: Sequence[tuple[float, float] | None] | None = None
    labels: Sequence[str] | None = None  # what each point is, such as "up to 2 calls"

    def columns(self) -> list[Sequence[Any]]:
        """What there is of each point."""
        found = (
            *(self.xs, self.ys, self.stderr),
            *(self.x_intervals, self.y_intervals, self.labels),
        )
        return [values for values in found if values is not None]


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
    pairs: tuple[AnswerPair, ...] = ()
    is_folded: bool = False  # only its title is seen until it is opened


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerFile:
    """A parquet file of answers, read while the page is written."""

    path: pathlib.Path
    prefix: str = ""  # before the name of each policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    title: str
    subtitle: str = ""
    variants: tuple[str, ...] = ()  # in the order of tables; a colour goes by the name
    headlines: tuple[Headline, ...] = ()
    sections: tuple[Section, ...] = ()
    trajectories: tuple[TrajectoryView, ...] = ()
    logs: tuple[
        pathlib.Path, ...
    ] = ()  # trajectories.jsonl of runs, read while the page is written
    answers: tuple[AnswerRecord, ...] = ()
    answer_files: tuple[AnswerFile, ...] = ()
    config: str = ""  # gin text

    @property
    def has_answers(self) -> bool:
        """Whether the viewer has anything to show; an empty log counts as something."""
        return bool(self.trajectories or self.logs or self.answers or self.answer_files)

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
                    lengths = {len(values) for values in series.columns()}
                    if len(lengths) > 1:
                        raise ValueError(
                            f"curve {curve.title!r}, series {series.name!r}: what it says of its points "
                            f"has lengths {sorted(lengths)}"
                        )


def write_report(path: str | pathlib.Path, report: Report) -> pathlib.Path:
    """Writes the page in one atomic replacement and returns its path.

    A page of many answers names chunks in the folder `report_data` beside it, which are written first.

    Raises:
      ValueError: tables or curves do not agree in length, or a line of a log is no trajectory; names it.
    """
    report.check()
    check_local(path, "the report")
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = chunked(_rows(report))
    beside = {} if found.fits_inside else found.chunks
    if beside:
        write_beside(path, beside)
    write_text(path, _page(report, found, folder_of(path).name if beside else ""))
    remove_others(path, beside)
    return path


def _rows(report: Report) -> Iterator[ViewerRow]:
    yield from map(row_of_view, map(view_to_row, report.trajectories))
    yield from itertools.chain.from_iterable(map(_logged, report.logs))
    yield from map(row_of_record, report.answers)
    for file in report.answer_files:
        for record in read_records(file.path):
            yield row_of_record(dataclasses.replace(record, policy=file.prefix + record.policy))


def _logged(log: pathlib.Path) -> Iterator[ViewerRow]:
    for number, row in enumerate(jsonl.read_rows(log), 1):
        try:
            yield row_of_view(row)
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            what = f"{type(error).__name__}: {error}"
            raise ValueError(f"{log}:{number}: the row is no trajectory ({what})") from None


def _page(report: Report, found: Chunked, folder: str) -> str:
    """The page.

    Args:
      folder: where its chunks are, beside it; "": it holds them itself.
    """
    script = "(() => {\n'use strict';\n" + "\n".join(map(_template, _SCRIPTS)) + "})();\n"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    inside = {} if folder else found.chunks
    parts = {
        "title": html.escape(report.title),
        # With 'strict-dynamic' our script may load further ones: the chunks. Nothing else on the page may.
        "script_source": f"'sha256-{digest}'" + (" 'strict-dynamic'" if folder else ""),
        "style": _template("report.css"),
        "script": script,
        "data": json_for_html(_page_data(report, found.index | {"folder": folder})),
        "chunks": "\n".join(
            f'<script type="text/plain" id="chunk-{name}">{content}</script>'
            for name, content in inside.items()
        ),
    }
    # One pass, so that data which looks like a placeholder stays data.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _template("report.html"))


def _template(name: str) -> str:
    folder = importlib.resources.files("jaxtool.report") / "templates"
    return (folder / name).read_text(encoding="utf-8")


def _page_data(report: Report, answers: dict[str, Any]) -> dict[str, Any]:
    now = datetime.datetime.now().astimezone()
    return {
        "title": report.title,
        "subtitle": report.subtitle,
        "written": now.strftime("%Y-%m-%d %H:%M %Z"),
        "variants": report.variants,
        "headlines": [dataclasses.asdict(headline) for headline in report.headlines],
        "sections": [_section_data(section) for section in report.sections],
        "answers": answers,
        "config": report.config,
    }


def _section_data(section: Section) -> dict[str, Any]:
    """A section with what the buttons of its tables save."""
    data = dataclasses.asdict(section)
    for table, row in zip(section.tables, data["tables"], strict=True):
        row["files"] = {
            "name": slug(table.title),
            "csv": table_csv(table),
            "tex": table_latex(table),
        }
    return data
