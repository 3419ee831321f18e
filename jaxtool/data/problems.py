"""Problem sets of files and of the hub, and the split of any problem set by hash.

Covered: duplicates of a question, counted; contamination of a training file by its test file; worked
solutions in place of answers (refused). A list under the answer's path holds acceptable answers, of which any
one is right. Rows are read by `rows`; where they keep what, `layouts` says.
Not covered: prompts, order (`batches`).

Every fault of a file is one line that names file, row and path, before anything is trained.
"""

import dataclasses
import functools
import hashlib
import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from jaxtool.core.json_lines import as_text
from jaxtool.core.seeds import stream_seed
from jaxtool.core.types import Problem
from jaxtool.data.layouts import Layout, layout_of
from jaxtool.data.row_path import row_path
from jaxtool.data.rows import Row, read_rows, stem_of

Split = Literal["train", "validation", "test"]


def split_of(text: str, *, salt: str = "problem split") -> Split:
    """80 % train, 10 % validation, 10 % test, by a hash that is the same everywhere.

    Args:
      text: what identifies the problem, its question or its id.
      salt: another salt is another split.
    """
    bucket = hashlib.blake2b(f"{salt} {text}".encode(), digest_size=4).digest()
    part = int.from_bytes(bucket) % 10
    return "test" if part == 9 else "validation" if part == 8 else "train"


def apportion(shares: tuple[float, ...], count: int) -> list[int]:
    """`count` in parts of these shares by largest remainders: whole numbers that sum to it."""
    exact = [share * count for share in shares]
    counts = [int(x) for x in exact]
    by_remainder = sorted(range(len(shares)), key=lambda i: (counts[i] - exact[i], i))
    for i in by_remainder[: count - sum(counts)]:
        counts[i] += 1
    return counts


def question_hash(question: str) -> str:
    """16 hexadecimal digits of the question's words; spacing does not matter, case does."""
    words = " ".join(question.split())
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """The problems of one file, each question once, and what else its rows held."""

    source: str  # the file or hub name
    problems: tuple[Problem, ...]  # in the order of their first rows
    rows: int
    conflicts: int  # questions left out because the rows disagree about their answer

    @property
    def repeats(self) -> int:
        """Rows whose question stands in an earlier row."""
        return self.rows - len(self.problems) - self.conflicts

    def __str__(self) -> str:
        text = f"{self.source}: {self.rows:,} rows"
        if not self.repeats and not self.conflicts:
            return f"{text}, no question twice"
        text += f", {len(self.problems):,} different questions; {self.repeats:,} rows repeat one"
        if self.conflicts:
            text += f"; {self.conflicts:,} questions with different answers are left out"
        return text


def read_problems(path: str | Path, layout: str | Layout) -> list[Problem]:
    """Problems of a file or hub set in its order, duplicates of a question left out; see `read_set`."""
    return list(read_set(path, layout).problems)


def read_set(path: str | Path, layout: str | Layout) -> ProblemSet:
    """All problems of a file or hub set. Rows are read one by one; a repeated one is counted and goes at once.

    problem_id is the file's stem and a hash of the question: it survives reordering and new rows.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row without question or answer, or two answers to one question; one line.
      OSError: a hub set cannot be had.
    """
    layout, stem = layout_of(layout), stem_of(path)
    reader = _Reader(layout, stem)
    for row in read_rows(path, layout.columns):
        reader.add(row)
    problems = [problem for _, problem in reader.first.values()]
    kept = tuple(p for p in problems if p.problem_id not in reader.conflicting)
    if not kept:
        raise ValueError(f"{path}: the file holds no problem")
    return ProblemSet(
        source=str(path), problems=kept, rows=reader.rows, conflicts=len(reader.conflicting)
    )


class _Reader:
    """Rows to problems, each question once."""

    def __init__(self, layout: Layout, stem: str) -> None:
        self.layout, self.stem = layout, stem
        self.rows = 0
        self.first: dict[str, tuple[Row, Problem]] = {}  # the first row of each question
        self.conflicting: set[str] = set()
        self._seen: set[bytes] = set()  # rows that say what an earlier one says, word for word
        self._paths = [row_path(path) for path in layout.paths]

    def add(self, row: Row) -> None:
        """Keeps the row's problem unless its question is known.

        Raises:
          ValueError: the row has no question or answer, or another answer to a known question.
        """
        self.rows += 1
        # DAPO-Math-17k says everything a hundred times: what is there word for word is not read again.
        read = [path.value(row.values, row.where, row.columns) for path in self._paths]
        mark = hashlib.blake2b(repr(read).encode(errors="surrogatepass"), digest_size=16).digest()
        if mark in self._seen:
            return
        self._seen.add(mark)
        problem = self._problem(row)
        earlier_row, earlier = self.first.setdefault(problem.problem_id, (_named(row), problem))
        if set(earlier.references) == set(problem.references):
            return
        if self.layout.conflicts == "refuse":
            raise ValueError(
                f"{row.where}: key {self.layout.answer!r} says {_listed(problem)}, but "
                f"{_briefly(earlier_row, row)} answers the same question with {_listed(earlier)}: mend the "
                "file, or set Layout.conflicts = 'drop' to leave such questions out"
            )
        self.conflicting.add(problem.problem_id)

    def _problem(self, row: Row) -> Problem:
        layout = self.layout
        question = _question(row, layout)
        answers = _answers(row, layout)
        level = self.stem
        if layout.level is not None:
            found = row_path(layout.level).value(row.values, row.where, row.columns)
            level = level if found is None else as_text(found, layout.level, row.where)
        return Problem(
            problem_id=f"{self.stem}/{question_hash(question)}",
            question=question,
            answer=answers[0],
            answers=answers if len(answers) > 1 else (),
            level=_level(level),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemFile:
    """A problem set of files or of the hub, with its splits.

    With one file all three splits are cut from it by hash. With a test file of its own, that is the
    whole test split: the other file gives train and validation, less any question that it shares with
    the test file.
    """

    path: str  # parquet, JSONL, JSON, CSV; or `org/name[:config][@split]` on the hub
    layout: str | Layout = "plain"  # by name, see `layouts.PRESETS`, or one's own
    test_path: str | None = None
    test_layout: str | Layout | None = None  # None: that of the other file

    def __post_init__(self) -> None:
        layout_of(self.layout)
        if self.test_layout is not None:
            if self.test_path is None:
                raise ValueError(f"ProblemFile.test_layout={self.test_layout!r} needs a test_path")
            layout_of(self.test_layout)

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """`count` different problems of a split, drawn by the seed; None: all of them.

        Raises:
          ValueError: the split holds fewer.
        """
        pool = self._pool(split)
        count = len(pool) if count is None else count
        if count > len(pool):
            raise ValueError(
                f"{count} problems asked of split {split!r} of {self.path}, which holds {len(pool)}"
            )
        return random.Random(stream_seed(seed, "jsonl", split)).sample(pool, count)

    @functools.cached_property
    def training_set(self) -> ProblemSet:
        """The file's problems, of all splits where there is no test file; read once."""
        return read_set(self.path, self.layout)

    @functools.cached_property
    def test_set(self) -> ProblemSet | None:
        """The test file's; read once."""
        if self.test_path is None:
            return None
        layout = self.layout if self.test_layout is None else self.test_layout
        return read_set(self.test_path, layout)

    def _pool(self, split: Split) -> list[Problem]:
        if self.test_set is None:
            return [p for p in self.training_set.problems if _split(p) == split]
        test = self.test_set.problems
        if split == "test":
            return list(test)
        held_out = {question_hash(p.question) for p in test}
        rest = [p for p in self.training_set.problems if question_hash(p.question) not in held_out]
        return [p for p in rest if (_split(p) == "validation") == (split == "validation")]


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSet:
    """A whole file as a test set."""

    name: str
    path: str  # a file or a hub name
    layout: str | Layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationSets:
    """Test sets of an evaluation: files that are test questions as a whole. They hold nothing to train on.

    problem_id begins with the set's name; where there are several sets the level is that name.
    """

    sets: tuple[EvaluationSet, ...]

    def __post_init__(self) -> None:
        names = [each.name for each in self.sets]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two test sets are named {twice[0]!r}: name one of them otherwise")

    def problems(self, split: Split, count: int | None, seed: int) -> list[Problem]:
        """Of each set `count` problems, drawn by the seed, or all where it holds fewer.

        Raises:
          ValueError: another split than "test" is asked for.
        """
        if split != "test":
            raise ValueError(f"split {split!r} asked of test sets, which hold nothing to train on")
        drawn: list[Problem] = []
        for each, found in zip(self.sets, self.found, strict=True):
            pool = [self._named(problem, each.name) for problem in found.problems]
            draw = random.Random(stream_seed(seed, "evaluation sets", each.name))
            size = len(pool) if count is None else min(count, len(pool))
            drawn += draw.sample(pool, size)
        return drawn

    @functools.cached_property
    def found(self) -> tuple[ProblemSet, ...]:
        """The problems of each set; read once."""
        return tuple(read_set(each.path, each.layout) for each in self.sets)

    def _named(self, problem: Problem, name: str) -> Problem:
        digest = problem.problem_id.rpartition("/")[2]
        level = problem.level if len(self.sets) == 1 else _level(name)
        return dataclasses.replace(problem, problem_id=f"{name}/{digest}", level=level)


def number_of(count: int | None, task: str) -> int:
    """`count`, for tasks that make as many problems as they are asked.

    Raises:
      ValueError: all were asked.
    """
    if count is None:
        raise ValueError(f"{task} has no last problem: say how many, Schedule.pool = 4096 for one")
    return count


def _split(problem: Problem) -> Split:
    return split_of(question_hash(problem.question))


def _named(row: Row) -> Row:
    """The row without its values: what is kept of each question's first."""
    return dataclasses.replace(row, values={}, columns=())


def _briefly(earlier: Row, row: Row) -> str:
    """`line 17` or `row 17` of the same file, or the whole place of another."""
    place, _, number = row.where.rpartition(":")
    if not earlier.where.startswith(f"{place}:"):
        return earlier.where
    return f"row {earlier.number}" if number.startswith(" row") else f"line {earlier.number}"


def _question(row: Row, layout: Layout) -> str:
    parts = []
    for path in layout.questions:
        value = path.value(row.values, row.where, row.columns)
        if value is not None:
            text = as_text(value, path.text, row.where)
            parts.append(_matched(layout.question_pattern, text, path.text, row.where, "question"))
    if not parts:
        raise ValueError(f"{row.where}: no question: nothing at {layout.question!r}")
    question = _join_sentences(parts)
    return question if question.endswith(layout.question_end) else question + layout.question_end


def _join_sentences(parts: Sequence[str]) -> str:
    """SVAMP's bodies have no full stop, so that body and question would run into each other."""
    ended = [part if part[-1] in ".?!,;:" else f"{part}." for part in parts[:-1]]
    return " ".join([*ended, parts[-1]])


def _listed(problem: Problem) -> str:
    return " or ".join(map(repr, problem.references))


def _answers(row: Row, layout: Layout) -> tuple[str, ...]:
    """The acceptable answers of a row in its order, each once."""
    path, where = row_path(layout.answer), row.where
    value = path.value(row.values, where, row.columns)
    if layout.has_json_answers:
        value = _list_in_text(value, path.text, where)
    if value == []:
        raise ValueError(
            f"{where}: key {path.text!r} is an empty list; one answer or more is needed"
        )
    if layout.answer_list == "one" and isinstance(value, list) and len(value) > 1:
        raise ValueError(
            f"{where}: key {path.text!r} is a list of {len(value)}, and this layout takes one: set "
            "Layout.answer_list = 'any' if each of them alone is right"
        )
    texts = _texts(value, path.text, where)
    for alias in layout.alias_paths:
        aliases = alias.value(row.values, where, row.columns)
        texts += [] if aliases is None else _texts(aliases, alias.text, where)
    return tuple(dict.fromkeys(_answer(text, layout, where) for text in texts))


def _texts(value: object, key: str, where: str) -> list[str]:
    if not isinstance(value, list):
        return [as_text(value, key, where)]
    return [as_text(entry, f"{key}[{i}]", where) for i, entry in enumerate(value)]


def _list_in_text(value: object, key: str, where: str) -> list[Any]:
    """`["a", "b"]` out of the text '["a", "b"]'."""
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ValueError(
            f"{where}: key {key!r} must hold a JSON list of answers, and holds {str(value)[:40]!r}: "
            "set Layout.has_json_answers = False for plain answers"
        )
    return found


def _answer(text: str, layout: Layout, where: str) -> str:
    if layout.answer_pattern is None:
        _check_is_no_solution(text, layout.answer, where)
    return _matched(layout.answer_pattern, text, layout.answer, where, "answer")


def _matched(pattern: str | None, text: str, key: str, where: str, what: str) -> str:
    """Group 1 of the pattern in a text, or the text where there is no pattern."""
    if pattern is None:
        return text
    match = re.search(pattern, text)
    if match is None or not (match[1] or "").strip():
        raise ValueError(
            f"{where}: no {what}: key {key!r} does not match {pattern!r}: {text[-60:]!r}"
        )
    return match[1].strip()


def _check_is_no_solution(text: str, key: str, where: str) -> None:
    """Raises ValueError on a worked solution, of which no response would ever be equal to the whole."""
    if re.search(r"^\s*####\s*\S", text, re.MULTILINE):
        raise ValueError(
            f"{where}: key {key!r} holds a whole solution that ends in {text[-30:]!r}: use the layout "
            "'gsm8k', or set Layout.answer_pattern"
        )
    if "\\boxed" in text and not re.fullmatch(r"\$*\\boxed\b.*", text, re.DOTALL):
        raise ValueError(
            f"{where}: key {key!r} holds a whole solution around a \\boxed answer, {text[-40:]!r}: name "
            "the path of the answer alone as Layout.answer, or set Layout.answer_pattern"
        )


def _level(text: str) -> str:
    """A level as part of a metric's name: "Level 5" is Level_5."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_.+-")
