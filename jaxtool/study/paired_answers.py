"""Answers of two policies to the same questions under one condition, question by question.

A pair is a question of which both sides have every answer that was asked for. What falls out is counted by why. Questions
of one id with another text or other references are refused: their difference would be no policy's. Knows no figures.
"""

import collections
import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float

from jaxtool.rundir.answer_records import AnswerRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """One question with every answer of both sides, in the order of their samples."""

    new: tuple[AnswerRecord, ...]
    old: tuple[AnswerRecord, ...]

    @property
    def problem_id(self) -> str:
        return self.new[0].problem_id

    @property
    def level(self) -> str:
        return self.new[0].level

    @property
    def gain(self) -> float:
        """Accuracy of the new side less that of the old one, -1 to 1."""
        return mean(a.is_correct for a in self.new) - mean(a.is_correct for a in self.old)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairing:
    """The pairs, and what is in none."""

    pairs: tuple[Pair, ...]  # in the order of the new side
    only_new: int  # questions that the old side was not asked
    only_old: int
    with_lost: int  # questions of which a side lost an answer to the infrastructure

    def of_level(self, level: str) -> "Pairing":
        """The pairs of one level; what is in none is not split by level."""
        pairs = tuple(pair for pair in self.pairs if pair.level == level)
        return Pairing(pairs=pairs, only_new=0, only_old=0, with_lost=0)

    @property
    def levels(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(pair.level for pair in self.pairs if pair.level))

    def records(self, side: str) -> list[AnswerRecord]:
        """Every answer of the pairs of "new" or "old", under the number of the pair in place of the question's id.

        So a question that is asked twice is two for what groups answers by question.
        """
        return [
            dataclasses.replace(answer, problem_id=str(number))
            for number, pair in enumerate(self.pairs)
            for answer in (pair.new if side == "new" else pair.old)
        ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Columns:
    """Numbers of one side by question: means over its answers, and sums."""

    accuracy: Float[np.ndarray, " Q"]
    tool_calls: Float[np.ndarray, " Q"]
    policy_tokens: Float[np.ndarray, " Q"]
    answers: Float[np.ndarray, " Q"]  # how many there are

    @property
    def right(self) -> Float[np.ndarray, " Q"]:
        """Right answers."""
        return self.accuracy * self.answers

    @property
    def calls(self) -> Float[np.ndarray, " Q"]:
        """Calls of all answers."""
        return self.tool_calls * self.answers


def pair_answers(
    new: Sequence[AnswerRecord], old: Sequence[AnswerRecord], *, names: tuple[str, str]
) -> Pairing:
    """Pairs the answers of two policies under one condition.

    Args:
      names: of both sides, for messages.

    Raises:
      ValueError: a question has another text or other references on the other side, or the sides share no question;
        one line.
    """
    ours, theirs = by_question(new), by_question(old)
    common = [question for question in ours if question in theirs]
    for question in common:
        _check_same(ours[question][0], theirs[question][0], names)
    if not common:
        raise ValueError(
            f"{names[0]} and {names[1]} share no question: {_first(ours)} is not among those of {names[1]}, "
            f"{_first(theirs)} not among those of {names[0]}; evaluate both with the same --data and --problems"
        )
    pairs = [Pair(new=tuple(ours[q]), old=tuple(theirs[q])) for q in common]
    whole = [pair for pair in pairs if not any(a.is_lost for a in (*pair.new, *pair.old))]
    return Pairing(
        pairs=tuple(whole),
        only_new=len(ours) - len(common),
        only_old=len(theirs) - len(common),
        with_lost=len(pairs) - len(whole),
    )


def by_question(records: Iterable[AnswerRecord]) -> dict[tuple[str, int], list[AnswerRecord]]:
    """Answers of each question by sample, questions in order of first appearance.

    A split may ask a question twice: by (id, 0), and by (id, 1) the second time.
    """
    found: dict[tuple[str, int], list[AnswerRecord]] = {}
    times: collections.Counter[tuple[str, int]] = collections.Counter()
    for record in records:
        key = record.problem_id, record.sample
        found.setdefault((record.problem_id, times[key]), []).append(record)
        times[key] += 1
    return {question: sorted(same, key=lambda a: a.sample) for question, same in found.items()}


def columns_of(sides: Iterable[Sequence[AnswerRecord]]) -> Columns:
    """Numbers of the answers of one side.

    Args:
      sides: the answers of each question.
    """
    rows = [
        (
            mean(a.is_correct for a in same),
            mean(a.num_calls for a in same),
            mean(a.policy_tokens for a in same),
            float(len(same)),
        )
        for same in sides
    ]
    accuracy, calls, tokens, answers = np.asarray(rows, float).reshape(-1, 4).T
    return Columns(accuracy=accuracy, tool_calls=calls, policy_tokens=tokens, answers=answers)


def mean(values: Iterable[float]) -> float:
    known = list(values)
    return sum(known) / len(known)


def _first(found: dict[tuple[str, int], list[AnswerRecord]]) -> str:
    return next((problem_id for problem_id, _ in found), "nothing")


def _check_same(new: AnswerRecord, old: AnswerRecord, names: tuple[str, str]) -> None:
    for field, ours, theirs in (
        ("another text", new.question, old.question),
        ("other reference answers", new.references, old.references),
    ):
        if ours != theirs:
            raise ValueError(
                f"question {new.problem_id} has {field} in {names[0]} ({_cut(ours)}) than in {names[1]} "
                f"({_cut(theirs)}): these are evaluations of different data"
            )


def _cut(value: str | tuple[str, ...]) -> str:
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
