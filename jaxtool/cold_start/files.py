"""Demonstrations of a file as candidates, with the references that their answers are compared with.

Covered: rows of `messages` as `sft` reads them, ReTool-SFT's with their prompt in the user's turn; references in
the row or in a file of problems with the same questions. Not covered: what is checked (`checking`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from jaxtool.cold_start.candidates import Candidate
from jaxtool.cold_start.source_rows import SourceLayout, answers_of, text_at
from jaxtool.core.types import Problem
from jaxtool.data.contamination import EvaluationQuestion
from jaxtool.data.problem_rows import question_hash
from jaxtool.data.rows import read_rows
from jaxtool.renderers.conversations import Conversation, read_conversations

References = Mapping[str, tuple[str, ...]]  # by the hash of the question


@dataclasses.dataclass(frozen=True, kw_only=True)
class DemonstrationLayout:
    """Where a row of messages keeps more than these."""

    answer_key: str = "answer"  # of the reference; a row may lack it
    # The question is what follows this in the user's turn, as in DemonstrationFile; None: all of it.
    question_after: str | None = None


def read_candidates(
    path: Path, layout: DemonstrationLayout, references: References
) -> list[Candidate]:
    """The rows of a file.

    Args:
      references: for rows that have none themselves.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row that `sft` would refuse, or a user's turn without the mark; file, line and key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no demonstrations at {str(path)!r}: give a file of them")
    conversations = read_conversations(path)
    if not conversations:
        raise ValueError(f"{path}: the file holds no demonstrations")
    answers = [
        answers_of(row, SourceLayout(answer=f"{layout.answer_key.removesuffix('?')}?"))
        for row in read_rows(path)
    ]
    return [
        _candidate(conversation, own, layout, references)
        for conversation, own in zip(conversations, answers, strict=True)
    ]


def read_references(path: Path, layout: SourceLayout) -> References:
    """The answers of a file of problems, by question. Raises as `read_candidates` does."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of answers {path}")
    found: dict[str, tuple[str, ...]] = {}
    for row in read_rows(path):
        answers = answers_of(row, layout)
        key = question_hash(text_at(row, layout.question))
        if answers and set(found.setdefault(key, answers)) != set(answers):
            raise ValueError(
                f"{row.where}: {answers} answers a question that a line before answers {found[key]}"
            )
    return found


def read_evaluation(texts: list[str]) -> list[EvaluationQuestion]:
    """The questions of evaluation files, each `FILE` or `KEY=FILE` where the question has another key.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row lacks the key.
    """
    found = []
    for text in texts:
        key, is_named, name = text.rpartition("=")
        path = Path(name if is_named else text)
        key = key if is_named else "question"
        if not path.is_file():
            raise FileNotFoundError(
                f"there is no evaluation file {path}: give --against [KEY=]FILE"
            )
        found += [
            EvaluationQuestion(where=row.where, question=text_at(row, key))
            for row in read_rows(path)
        ]
    return found


def _candidate(
    conversation: Conversation,
    own: tuple[str, ...],
    layout: DemonstrationLayout,
    references: References,
) -> Candidate:
    question = _question(conversation, layout.question_after)
    answers = own or references.get(question_hash(question), ())
    problem = None
    if answers:
        problem = Problem(
            problem_id=conversation.name,
            question=question,
            answer=answers[0],
            answers=answers if len(answers) > 1 else (),
        )
    return Candidate(
        row_id=conversation.name,
        where=conversation.where,
        problem=problem,
        conversation=conversation,
        question=question,
    )


def _question(conversation: Conversation, mark: str | None) -> str:
    if mark is None:
        return conversation.question
    _, found, question = conversation.question.partition(mark)
    if not found or not question.strip():
        raise ValueError(
            f"{conversation.where}: {conversation.spoken[0].key}: the user's message lacks {mark!r} with a "
            "question behind it, which --question_after names"
        )
    return question.strip()
