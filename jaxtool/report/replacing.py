"""A richer page is never replaced by a poorer one: what a new page would lose of the one that is there.

A page is poorer if a headline, a section or a table of the old one is not in it, or if it alone has no answers to look at.
Curves of the same section may differ: the run has gone on. Not covered: what is in a table.
"""

import json
import pathlib
import re
from typing import Any

from jaxtool.report.page import Report, write_report

_DATA = re.compile(r'<script type="application/json" id="report-data">(.*?)</script>', re.DOTALL)
_SHOWN = 6  # titles of a refusal


def lost_by(path: str | pathlib.Path, report: Report) -> list[str]:
    """What the page at `path` has and `report` has not, in words; empty where nothing is lost."""
    path = pathlib.Path(path)
    if not path.exists():
        return []
    found = _DATA.search(path.read_text(encoding="utf-8", errors="replace"))
    if found is None:
        return ["a page that is no report"]
    data = json.loads(found[1])
    kept = set(_parts(_as_data(report)))
    lost = [part for part in _parts(data) if part not in kept]
    # Pages of earlier versions hold their trajectories themselves.
    count = len(data["trajectories"]) if "trajectories" in data else data["answers"]["count"]
    if count and not report.has_answers:
        lost.append(f"{count} answers")
    return lost


def refusal(path: str | pathlib.Path, lost: list[str]) -> str:
    """One line about a page that is not replaced."""
    more = f" and {len(lost) - _SHOWN} more" if len(lost) > _SHOWN else ""
    return f"{path} holds what the files of the run do not: {', '.join(lost[:_SHOWN])}{more}"


def write_beside_richer(path: pathlib.Path, report: Report) -> pathlib.Path:
    """Writes the page at `path`, or beside a richer one that is there, with a line about it."""
    lost = lost_by(path, report)
    if lost:
        beside = path.with_name(f"{path.stem}_of_run{path.suffix}")
        print(f"{refusal(path, lost)}: it stays, and this page is beside it")
        path = beside
    return write_report(path, report)


def _as_data(report: Report) -> dict[str, Any]:
    return {
        "headlines": [{"label": one.label} for one in report.headlines],
        "sections": [
            {"title": one.title, "tables": [{"title": table.title} for table in one.tables]}
            for one in report.sections
        ],
    }


def _parts(data: dict[str, Any]) -> list[str]:
    parts = [f"the headline {one['label']!r}" for one in data["headlines"]]
    for section in data["sections"]:
        parts.append(f"the section {section['title']!r}")
        parts += [f"the table {table['title']!r}" for table in section["tables"]]
    return parts
