"""A paper's tables as data: every row with how it is asked, what the paper reports, and the commands that make ours.

Figures stand in the paper's own unit. What a paper does not report is left out of a row; nothing stands for it.
Not covered: the files that suites are read from (`suite_files`), asking (`suite_rows`), tables of what came out
(`suite_tables`).
"""

import dataclasses
import difflib
import shlex
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from jaxtool.config.places import as_typed, command_words

AVERAGE = "average"  # in the place of a set: the mean over the sets of the table
# "accuracy" and "em" are one figure, avg@k: the mean over questions of the share of right answers.
Figure = Literal["accuracy", "em", "tc", "tp"]
Unit = Literal["percent", "fraction"]  # of accuracy, em and tp; tc is calls an answer
Method = Literal["prompted", "retrieval", "sft", "text_rl", "tool_rl", "no_mask", "rejection"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteSet:
    """A test set that tables name."""

    layout: str  # where its rows keep question and answer (docs/data.md)
    level: str | None = (
        None  # of its rows, where one file holds several sets; None: all rows are its
    )
    about: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row of a table: a policy under one condition."""

    name: str  # what --policy NAME=WEIGHTS calls it; the same in two tables is the same policy
    method: Method
    model: str  # that it starts from, as the paper names it
    tools: bool  # whether it may call tools when it is asked
    calls: int | None = None  # the call budget when it is asked; None: that of the run files
    weights: str = (
        ""  # what the commands leave, or where an untrained model is put; "" where there is none
    )
    commands: tuple[str, ...] = ()  # that train it, in order; () for an untrained model
    why: str = ""  # where neither commands nor weights exist: why
    gin_files: tuple[str, ...] = ()  # by which it is asked; (): the table's
    gin_params: tuple[str, ...] = ()  # behind the table's
    paper: Mapping[str, Mapping[str, float]] = dataclasses.field(
        default_factory=dict
    )  # by figure, then set
    note: str = ""

    def reported(self, figure: str, test_set: str) -> float | None:
        """What the paper reports; None: it does not."""
        return self.paper.get(figure, {}).get(test_set)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteTable:
    """One table of a paper, and how its answers are sampled."""

    name: str
    caption: str
    citation: str  # paper and table
    sets: tuple[str, ...]
    figures: tuple[Figure, ...]
    unit: Unit
    samples: int  # answers to each question
    temperature: float  # 0 is greedy
    top_p: float = 1.0
    sampling_note: str = ""  # what of this the paper does not say
    gin_files: tuple[str, ...]  # task, renderer and engine by which rows are asked
    gin_params: tuple[str, ...] = ()
    rows: tuple[Row, ...]

    @property
    def columns(self) -> tuple[tuple[str, str], ...]:
        """(figure, set) of every column: those that a row of the table reports."""
        pairs = [(figure, one) for one in (*self.sets, AVERAGE) for figure in self.figures]
        return tuple(
            (figure, one)
            for figure, one in pairs
            if one != AVERAGE or any(row.reported(figure, one) is not None for row in self.rows)
        )

    @property
    def sampling(self) -> str:
        """`greedy`, or `32 samples, temperature 1, top-p 0.7`."""
        if self.temperature == 0:
            return "greedy"
        return f"{self.samples} samples, temperature {self.temperature:g}, top-p {self.top_p:g}"

    def gin_files_of(self, row: Row) -> tuple[str, ...]:
        return row.gin_files or self.gin_files

    def gin_params_of(self, row: Row) -> tuple[str, ...]:
        return (*self.gin_params, *row.gin_params)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperSuite:
    """The tables of one paper."""

    name: str  # of the file
    title: str
    paper: str  # citation
    notes: tuple[str, ...] = ()  # printed below the tables
    sets: Mapping[str, SuiteSet]
    tables: tuple[SuiteTable, ...]
    file: str  # as errors and commands name it

    @property
    def row_names(self) -> tuple[str, ...]:
        """Each once, in the order of the tables."""
        return tuple(dict.fromkeys(row.name for _, row in self.rows()))

    def rows(self) -> Iterator[tuple[SuiteTable, Row]]:
        """Every row with its table."""
        return ((table, row) for table in self.tables for row in table.rows)

    def check_names(self, names: Mapping[str, Any]) -> None:
        """Raises ValueError if a policy is called as no row is."""
        for name in names:
            if name not in self.row_names:
                near = difflib.get_close_matches(name, self.row_names, 1, 0.4)
                meant = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(
                    f"--policy {name}=...: the suite {self.name} has no row {name!r}: {meant}"
                    f"its rows are {', '.join(self.row_names)}"
                )

    def evaluate_command(self, row: Row) -> str:
        """Asks a row, with the weights that its commands leave."""
        words = [*command_words("evaluate"), "--suite", self.file]
        words += ["--policy", f"{row.name}={row.weights}", "--workdir", f"runs/eval_{self.name}"]
        return shlex.join(words)

    def commands_of(self, row: Row) -> tuple[str, ...]:
        """All commands that lead to our figures of a row, in order; () where it cannot be made."""
        return (*map(as_typed, row.commands), self.evaluate_command(row)) if row.weights else ()
