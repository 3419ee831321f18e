"""Demonstrations of a file as candidates, with the references that their answers are compared with.

Covered: rows of `messages` as `sft` reads them, ReTool-SFT's with their prompt in the user's turn; references in
the row or in a file of problems with the same questions. Not covered: what is checked (`checking`).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtool.cold_start.candidates import Candidate
from jaxtool.cold_start.source_rows import SourceLayout, answers_of, at
from jaxtool.core.json_lines import as_text, read_rows
from jaxtool.core.types import Problem
from jaxtool.data.contamination import EvaluationQuestion
from jaxtool.data.problems import question_hash
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
        raise FileNotFoundError(f"no demonstrations at {str(path)!r}: give a JSONL file")
    conversations = read_conversations(path)
    if not conversations:
        raise ValueError(f"{path}: the file holds no demonstrations")
    answers = [
        _own_answers(row, layout.answer_key, f"{path}:{number}") for number, row in read_rows(path)
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
    for number, row in read_rows(path):
        where = f"{path}:{number}"
        answers = answers_of(row, layout, where)
        key = question_hash(as_text(at(row, layout.question, where), layout.question, where))
        if answers and set(found.setdefault(key, answers)) != set(answers):
            raise ValueError(
                f"{where}: {answers} answers a question that a line before answers {found[key]}"
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
        for number, row in read_rows(path):
            where = f"{path}:{number}"
            found.append(
                EvaluationQuestion(where=where, question=as_text(at(row, key, where), key, where))
            )
    return found


def _own_answers(row: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    try:
        at(row, key, where)
    except ValueError:
        return ()
    return answers_of(row, SourceLayout(answer=key), where)


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
