"""Every chart of a report as an SVG file, every table as CSV and LaTeX.

Names are those of the titles: `untouched_test_set-all_levels.csv`. Two of one name are numbered, and all kinds of file
of one table have one name. A page holds its tables and charts as data, so that they can be taken out of it again.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxtool.core.files import write_text
from jaxtool.report.page import Curve, Report, Section, Series, Table
from jaxtool.report.svg import curve_svg
from jaxtool.report.table_files import slug, table_csv, table_latex

_DATA = re.compile(r'<script type="application/json" id="report-data">(.*?)</script>', re.DOTALL)


def write_figures(
    report: Report,
    *,
    svg: Path | None = None,
    csv: Path | None = None,
    latex: Path | None = None,
) -> list[Path]:
    """Writes what is asked for, each kind into its directory, which is made; returns the files.

    Files that are there of an earlier time are replaced where they have the same name; others stay.

    Raises:
      OSError: a directory cannot be made or a file written.
    """
    for folder in filter(None, (svg, csv, latex)):
        folder.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    used: dict[str, int] = {}
    for section, figure in _figures(report):
        name = _unique(f"{slug(section.title)}-{slug(figure.title)}", used)
        if isinstance(figure, Curve):
            if svg is not None:
                text = curve_svg(figure, report.variants)
                written.append(write_text(svg / f"{name}.svg", text))
            continue
        if csv is not None:
            written.append(write_text(csv / f"{name}.csv", table_csv(figure)))
        if latex is not None:
            written.append(write_text(latex / f"{name}.tex", table_latex(figure)))
    return written


def report_of_page(path: str | Path) -> Report:
    """Title, variants, tables and charts of a page that `write_report` wrote.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: the file is no such page; names it.
    """
    found = _DATA.search(Path(path).read_text(encoding="utf-8", errors="replace"))
    if found is None:
        raise ValueError(f"{path} is no report: it holds no figures; give a page of jaxtool")
    try:
        data = json.loads(found[1])
        return Report(
            title=data["title"],
            subtitle=data["subtitle"],
            variants=tuple(data["variants"]),
            sections=tuple(map(_section, data["sections"])),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is a damaged report: {error!r}") from None


def _figures(report: Report) -> Iterator[tuple[Section, Table | Curve]]:
    for section in report.sections:
        for figure in (*section.tables, *section.curves):
            yield section, figure


def _unique(name: str, used: dict[str, int]) -> str:
    used[name] = used.get(name, 0) + 1
    return name if used[name] == 1 else f"{name}-{used[name]}"


def _section(data: dict[str, Any]) -> Section:
    return Section(
        title=data["title"],
        note=data["note"],
        tables=tuple(
            Table(
                title=table["title"],
                columns=tuple(table["columns"]),
                rows=tuple(map(tuple, table["rows"])),
                note=table["note"],
            )
            for table in data["tables"]
        ),
        curves=tuple(
            Curve(
                title=curve["title"],
                x_label=curve["x_label"],
                y_label=curve["y_label"],
                series=tuple(Series(**series) for series in curve["series"]),
                note=curve["note"],
            )
            for curve in data["curves"]
        ),
    )
