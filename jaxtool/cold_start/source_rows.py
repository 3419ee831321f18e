"""Text reasoning to be rewritten: problem, reasoning and answer of each row of a file.

Covered: the files of `jaxtool.data.rows`, paths into a row, worked solutions that hold their answer. Not covered: which
rows are worth rewriting (`screening`).
"""

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from jaxtool.core.json_lines import as_text
from jaxtool.core.types import Problem
from jaxtool.data.row_path import row_path
from jaxtool.data.rows import Row, read_rows, stem_of
from jaxtool.judges.answer_format import last_boxed

AnswerIn = Literal["whole", "boxed", "hashes"]
_AFTER_HASHES = re.compile(r"####\s*(\S[^\n]*?)\s*\Z")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceLayout:
    """Where a row keeps its parts, as paths into it: `prompt[0].content` (`jaxtool.data.row_path`)."""

    question: str = "question"
    reasoning: str = "reasoning"
    answer: str = "answer"
    # What of the answer's text is the answer: all, the last \boxed{...}, or what follows GSM8K's ####.
    answer_in: AnswerIn = "whole"

    def __post_init__(self) -> None:
        if self.answer_in not in get_args(AnswerIn):
            known = ", ".join(get_args(AnswerIn))
            raise ValueError(f"SourceLayout.answer_in={self.answer_in!r} must be one of {known}")
        for path in (self.question, self.reasoning, self.answer):
            row_path(path)


LAYOUTS: Mapping[str, SourceLayout] = {
    "plain": SourceLayout(),
    "gsm8k": SourceLayout(reasoning="answer", answer_in="hashes"),
    # Open-Thoughts, with the metadata of its rows.
    "open_thoughts": SourceLayout(
        question="problem",
        reasoning="deepseek_reasoning",
        answer="ground_truth_solution",
        answer_in="boxed",
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One row."""

    where: str  # file:line, or file and row
    row_id: str  # the file's stem and the number of the line or row
    question: str
    reasoning: str
    answers: tuple[str, ...]  # any one of them is right; (): none was found

    @property
    def problem(self) -> Problem:
        return Problem(
            problem_id=self.row_id,
            question=self.question,
            answer=self.answers[0],
            answers=self.answers if len(self.answers) > 1 else (),
        )


def read_source(path: Path, layout: SourceLayout, count: int | None = None) -> list[SourceRow]:
    """The rows of a file, the first `count` of them; None: all.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row lacks a part; one line with file, row and path.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of reasoning {path}: give a file as --source")
    rows = []
    for row in read_rows(path):
        if count is not None and len(rows) == count:
            break
        rows.append(
            SourceRow(
                where=row.where,
                row_id=f"{stem_of(path)}/{row.number}",
                question=text_at(row, layout.question),
                reasoning=text_at(row, layout.reasoning),
                answers=answers_of(row, layout),
            )
        )
    if not rows:
        raise ValueError(f"{path}: the file holds no rows")
    return rows


def digest(path: Path) -> str:
    """Of a file's bytes, by which a resumed run knows that they are the same."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]


def text_at(row: Row, path: str) -> str:
    """The text at a path. Raises ValueError if there is none."""
    return as_text(row_path(path).value(row.values, row.where, row.columns), path, row.where)


def answers_of(row: Row, layout: SourceLayout) -> tuple[str, ...]:
    """The acceptable answers of a row, each once; () where it has none, as Open-Thoughts' code rows.

    Raises:
      ValueError: the row lacks the path, or has something else than texts and numbers there.
    """
    value = row_path(layout.answer).value(row.values, row.where, row.columns)
    values = [] if value is None else value if isinstance(value, list) else [value]
    texts = [as_text(each, layout.answer, row.where) for each in values]
    found = (_answer(text, layout) for text in texts)
    return tuple(dict.fromkeys(text for text in found if text))


def _answer(text: str, layout: SourceLayout) -> str | None:
    if layout.answer_in == "whole":
        return text
    if layout.answer_in == "boxed":
        return last_boxed(text)
    found = _AFTER_HASHES.search(text)
    return found[1] if found else None
