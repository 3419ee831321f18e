"""Rows of a data set to problems: question, acceptable answers and level, each problem once.

Covered: repeats of a question, counted; two answers to one question; worked solutions in place of answers
(refused). A list under the answer's path holds acceptable answers, of which any one is right. Not covered: how
rows are read (`rows`), where they keep what (`layouts`), splits (`problems`).

Every fault of a file is one line that names file, row and path, before anything is trained.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxtool.core.json_lines import as_text
from jaxtool.core.types import Problem
from jaxtool.data.layouts import Layout, layout_of
from jaxtool.data.row_path import row_path
from jaxtool.data.rows import Row, read_rows, stem_of


def question_hash(question: str) -> str:
    """16 hexadecimal digits of the question's words; spacing does not matter, case does."""
    words = " ".join(question.split())
    return hashlib.blake2b(words.encode(), digest_size=8).hexdigest()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemSet:
    """The problems of one file, each once, and what else its rows held."""

    source: str  # the file or hub name
    problems: tuple[Problem, ...]  # in the order of their first rows
    rows: int
    conflicts: int  # questions left out because the rows disagree about their answer
    twins: int = 0  # problems kept although an earlier one asks the same question

    @property
    def repeats(self) -> int:
        """Rows whose problem stands in an earlier row."""
        return self.rows - len(self.problems) - self.conflicts

    def __str__(self) -> str:
        text = f"{self.source}: {self.rows:,} rows"
        if not self.repeats and not self.conflicts and not self.twins:
            return f"{text}, no question twice"
        asked = len(self.problems) - self.twins
        text += f", {asked:,} different questions; {self.repeats:,} rows repeat one"
        if self.twins:
            text += f"; {self.twins:,} ask one again with another answer or level, and are kept"
        if self.conflicts:
            text += f"; {self.conflicts:,} questions with different answers are left out"
        return text


def read_problems(path: str | Path, layout: str | Layout) -> list[Problem]:
    """Problems of a file or hub set in its order, duplicates of a question left out; see `read_set`."""
    return list(read_set(path, layout).problems)


def read_set(path: str | Path, layout: str | Layout) -> ProblemSet:
    """All problems of a file or hub set. Rows are read one by one; a repeated one is counted and goes at once.

    problem_id is the file's stem and a hash of the question: it survives reordering and new rows. Where "keep" of
    `Layout.conflicts` leaves several problems of one question, a hash of level and answers tells them apart.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row without question or answer, or two answers to one question; one line.
      OSError: a hub set cannot be had.
    """
    layout, stem = layout_of(layout), stem_of(path)
    reader = SetReader(layout, stem)
    for row in read_rows(path, layout.columns):
        reader.add(row)
    found = reader.result(str(path))
    if not found.problems:
        raise ValueError(f"{path}: the file holds no problem")
    return found


class SetReader:
    """Rows to problems, each question once.

    Attributes:
      rows: how many were given.
      conflicting: ids of questions to which rows give different answers.
    """

    def __init__(self, layout: Layout, stem: str) -> None:
        self.layout, self.stem = layout, stem
        self.rows = 0
        # By question: the first row of each problem. There is one but for "keep".
        self.asked: dict[str, list[tuple[int, Row, Problem]]] = {}
        self.conflicting: set[str] = set()
        self._seen: set[bytes] = set()  # rows that say what an earlier one says, word for word
        self._paths = [row_path(path) for path in layout.paths]

    def result(self, source: str) -> ProblemSet:
        """What the rows so far hold."""
        kept = [same for key, same in self.asked.items() if key not in self.conflicting]
        numbered = [one for same in kept for one in _told_apart(same)]
        return ProblemSet(
            source=source,
            problems=tuple(problem for _, problem in sorted(numbered, key=lambda one: one[0])),
            rows=self.rows,
            conflicts=len(self.conflicting),
            twins=len(numbered) - len(kept),
        )

    def add(self, row: Row) -> None:
        """Keeps the row's problem unless it is known.

        Raises:
          ValueError: the row has no question or answer, or another answer to a known question.
        """
        self.rows += 1
        # DAPO-Math-17k says everything a hundred times: what is there word for word is not read again.
        read = [path.value(row.values, row.where, row.columns) for path in self._paths]
        mark = hashlib.blake2b(repr(read).encode(errors="surrogatepass"), digest_size=16).digest()
        if mark in self._seen:
            return
        problem = self._problem(row)
        earlier = self.asked.setdefault(problem.problem_id, [])
        if not any(self._is_same(problem, other) for _, _, other in earlier):
            if earlier and self.layout.conflicts == "refuse":
                self._refuse(row, problem, earlier[0])
            if earlier and self.layout.conflicts == "drop":
                self.conflicting.add(problem.problem_id)
            else:
                earlier.append((self.rows, _named(row), problem))
        self._seen.add(mark)

    def _is_same(self, problem: Problem, other: Problem) -> bool:
        """Whether two problems of one question are one."""
        is_same_level = problem.level == other.level or self.layout.conflicts != "keep"
        return is_same_level and set(problem.references) == set(other.references)

    def _refuse(self, row: Row, problem: Problem, earlier: tuple[int, Row, Problem]) -> NoReturn:
        raise ValueError(
            f"{row.where}: key {self.layout.answer!r} says {_listed(problem)}, but "
            f"{_briefly(earlier[1], row)} answers the same question with {_listed(earlier[2])}: mend the "
            "file, or set Layout.conflicts = 'drop' to leave such questions out, or 'keep' to ask both"
        )

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
            level=level_of(level),
        )


def _told_apart(same: Sequence[tuple[int, Row, Problem]]) -> list[tuple[int, Problem]]:
    """Problems of one question with the numbers of their rows, each with an id of its own."""
    if len(same) == 1:
        return [(number, problem) for number, _, problem in same]
    return [
        (
            number,
            dataclasses.replace(
                problem, problem_id=f"{problem.problem_id}-{_answer_hash(problem)}"
            ),
        )
        for number, _, problem in same
    ]


def _answer_hash(problem: Problem) -> str:
    return question_hash(json.dumps([problem.level, *sorted(problem.references)]))


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


def level_of(text: str) -> str:
    """A level as part of a metric's name: "Level 5" is Level_5."""
    return re.sub(r"[^A-Za-z0-9_.+-]+", "_", text).strip("_.+-")
