"""Reads suites: TOML files, those of `jaxtool/study/suites` by name, or a user's own by path.

Every key is read, known and of its type, or refused in one line with file, line, key and remedy; docs/suites.md
explains them. Not covered: what the values mean (`paper_suites`).
"""

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jaxtool.data.layouts import PRESETS
from jaxtool.rundir.answer_files import check_policy_name
from jaxtool.study.paper_suites import AVERAGE, PaperSuite, Row, SuiteSet, SuiteTable
from jaxtool.study.toml_files import TomlFile

_OWN = "suites"


def suite_names() -> list[str]:
    """Those that come with the package."""
    folder = resources.files("jaxtool.study") / _OWN
    return sorted(file.name[:-5] for file in folder.iterdir() if file.name.endswith(".toml"))


def load_suite(name_or_path: str) -> PaperSuite:
    """A suite by its name, or the file at a path that ends in .toml.

    Raises:
      FileNotFoundError: there is no such suite.
      ValueError: not TOML, or a key that is unknown, missing, of another type or contradicts another one; one line.
    """
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path)
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no suite at {path}: name a TOML file, see docs/suites.md"
            )
        raw, name = path.read_bytes(), path.stem
    else:
        if name_or_path not in suite_names():
            raise FileNotFoundError(
                f"there is no suite {name_or_path!r}: there are {', '.join(suite_names())}, or name a file of "
                "your own that ends in .toml"
            )
        raw = (resources.files("jaxtool.study") / _OWN / f"{name_or_path}.toml").read_bytes()
        name = name_or_path
    return _Reader(TomlFile(name_or_path, raw)).suite(name)


class _Reader:
    """Makes a suite of a file's tables; faults name file and line."""

    def __init__(self, file: TomlFile) -> None:
        self._file = file

    def suite(self, name: str) -> PaperSuite:
        values = dict(self._file.values)
        for key, header in (("sets", "[sets.NAME]"), ("tables", "[[tables]]")):
            if not values.get(key):
                raise self._file.fault(1, f"{key} is missing: write {header}")
        sets = self._table_of_tables(values.pop("sets"))
        tables = self._list_of_tables(values.pop("tables"), "tables", "[[tables]]")
        suite = self._file.made(
            PaperSuite,
            values,
            1,
            "the suite",
            name=name,
            file=self._file.file,
            sets={
                one: self._file.made(
                    SuiteSet, each, self._file.line(f"[sets.{one}]"), f"sets.{one}"
                )
                for one, each in sets.items()
            },
            tables=tuple(self._suite_table(table, number) for number, table in enumerate(tables)),
        )
        self._check(suite)
        return suite

    def _suite_table(self, values: Mapping[str, Any], number: int) -> SuiteTable:
        where = f"tables[{number}]"
        line = self._file.line("[[tables]]", number)
        rows = self._list_of_tables(values.get("rows", []), f"{where}.rows", "[[tables.rows]]")
        if not rows:
            raise self._file.fault(line, f"{where} has no rows: write [[tables.rows]] below it")
        before = sum(len(table.get("rows", ())) for table in self._file.values["tables"][:number])
        made = tuple(
            self._file.made(
                Row, row, self._file.line("[[tables.rows]]", before + i), f"{where}.rows[{i}]"
            )
            for i, row in enumerate(rows)
        )
        rest = {key: value for key, value in values.items() if key != "rows"}
        return self._file.made(SuiteTable, rest, line, where, rows=made)

    def _table_of_tables(self, value: Any) -> dict[str, Any]:
        if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
            raise self._file.fault(
                self._file.line("sets"), "sets must be tables: write [sets.NAME] over each"
            )
        return value

    def _list_of_tables(self, value: Any, where: str, header: str) -> list[dict[str, Any]]:
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise self._file.fault(
                self._file.line(where.rpartition(".")[2]),
                f"{where} must be tables: write {header} over each",
            )
        return value

    def _check(self, suite: PaperSuite) -> None:
        """What the values mean together."""
        for name, one in suite.sets.items():
            if name == AVERAGE or not re.fullmatch(r"\w+", name):
                raise self._file.fault(
                    self._file.line(f"[sets.{name}]"), f"a set cannot be called {name!r}"
                )
            if one.layout not in PRESETS:
                raise self._file.fault(
                    self._file.line(f"[sets.{name}]"),
                    f"sets.{name}.layout={one.layout!r} is no layout: there are {', '.join(PRESETS)}",
                )
        names = [table.name for table in suite.tables]
        rows, known = 0, {}
        for number, table in enumerate(suite.tables):
            line = self._file.line("[[tables]]", number)
            self._check_table(suite, table, line, names)
            seen: list[str] = []
            for row in table.rows:
                self._check_row(table, row, self._file.line("[[tables.rows]]", rows), seen)
                same = known.setdefault(row.name, row)
                if (row.weights, row.commands) != (same.weights, same.commands):
                    raise self._file.fault(
                        self._file.line("[[tables.rows]]", rows),
                        f"row {row.name!r} of {table.name!r} has other weights or commands than the row of that "
                        "name in an earlier table: one name is one policy, name one of them otherwise",
                    )
                rows += 1
                seen.append(row.name)

    def _check_table(
        self, suite: PaperSuite, table: SuiteTable, line: int, names: list[str]
    ) -> None:
        where = f"tables {table.name!r}"
        if names.count(table.name) > 1 or not re.fullmatch(r"\w+", table.name):
            raise self._file.fault(
                line, f"{where}: a table needs a name of its own, letters and digits"
            )
        if unknown := [one for one in table.sets if one not in suite.sets]:
            raise self._file.fault(
                line, f"{where}.sets names {unknown[0]!r}, of which there is no [sets.{unknown[0]}]"
            )
        if not table.sets or not table.figures or not table.gin_files:
            raise self._file.fault(line, f"{where}: sets, figures and gin_files must not be empty")
        if table.samples < 1 or table.temperature < 0 or not 0 < table.top_p <= 1:
            raise self._file.fault(
                line, f"{where}: samples must be >= 1, temperature >= 0 and 0 < top_p <= 1"
            )
        if table.temperature == 0 and (table.samples > 1 or table.top_p < 1):
            raise self._file.fault(
                line,
                f"{where} is greedy (temperature 0): all answers to a question are equal; set samples = 1 and "
                "leave top_p out",
            )

    def _check_row(self, table: SuiteTable, row: Row, line: int, seen: list[str]) -> None:
        where = f"row {row.name!r} of {table.name!r}"
        try:
            check_policy_name(row.name)
        except ValueError as error:
            raise self._file.fault(line, str(error)) from None
        if row.name in seen or "=" in row.name or "/" in row.name:
            raise self._file.fault(line, f"{where}: a row needs a name of its own in its table")
        if bool(row.weights) == bool(row.why):
            raise self._file.fault(
                line, f"{where} needs weights, or a line in `why` that says why there are none"
            )
        if row.commands and not row.weights:
            raise self._file.fault(line, f"{where} has commands: say in `weights` what they leave")
        if row.calls is not None and (row.calls < 1 or not row.tools):
            raise self._file.fault(
                line, f"{where}: calls={row.calls} needs tools = true and must be >= 1"
            )
        for figure, values in row.paper.items():
            if figure not in table.figures:
                raise self._file.fault(
                    line,
                    f"{where}.paper.{figure}: the table's figures are {', '.join(table.figures)}",
                )
            for one in values:
                if one not in (*table.sets, AVERAGE):
                    raise self._file.fault(
                        line,
                        f"{where}.paper.{figure}.{one}: the table's sets are {', '.join(table.sets)}, and "
                        f"{AVERAGE}",
                    )
