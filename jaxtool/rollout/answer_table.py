"""What figures need of an evaluation's answers: a few numbers of each, question by question.

Lost answers are in no figure; how many they are stands beside it.
"""

import collections
import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from jaxtyping import Float, Int

from jaxtool.rundir.answer_records import AnswerRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnswerTable:
    """Numbers of the answers that came back, question by question; K is the most that a question has.

    Rows of questions with fewer answers are filled with zeros behind `present[q]`.
    """

    questions: tuple[
        str, ...
    ]  # problem ids, in order of first appearance; also those with lost answers only
    levels: tuple[str, ...]  # of the questions
    present: Int[np.ndarray, " Q"]  # answers that came back
    lost: Int[np.ndarray, " Q"]
    correct: Float[np.ndarray, "Q K"]  # 0 or 1
    score: Float[np.ndarray, "Q K"]
    lenient: Float[
        np.ndarray, "Q K"
    ]  # right by the judge's lenient rule; NaN where it reports none
    calls: Float[np.ndarray, "Q K"]
    policy_tokens: Float[np.ndarray, "Q K"]
    tool_tokens: Float[np.ndarray, "Q K"]
    final_answers: tuple[tuple[str | None, ...], ...]  # of each question, those that came back

    @property
    def answers(self) -> int:
        """That came back."""
        return int(self.present.sum())

    @property
    def num_lost(self) -> int:
        return int(self.lost.sum())

    @property
    def lost_fraction(self) -> float:
        return self.num_lost / max(1, self.answers + self.num_lost)

    @property
    def samples(self) -> int:
        """Answers that were asked of each question."""
        return int((self.present + self.lost).max(initial=0))

    def of_level(self, level: str) -> Self:
        """The questions of one level."""
        return self.chosen([i for i, one in enumerate(self.levels) if one == level])

    def chosen(self, rows: Sequence[int]) -> Self:
        """Some questions, by index."""
        index = np.asarray(rows, np.int64)
        arrays = {
            field.name: getattr(self, field.name)[index]
            for field in dataclasses.fields(self)
            if isinstance(getattr(self, field.name), np.ndarray)
        }
        texts = {
            name: tuple(getattr(self, name)[i] for i in rows)
            for name in ("questions", "levels", "final_answers")
        }
        return dataclasses.replace(self, **arrays, **texts)


def table_of(records: Iterable[AnswerRecord]) -> AnswerTable:
    """The numbers of answers, which must be of one policy under one condition.

    Raises:
      ValueError: they are of several.
    """
    kinds: set[tuple[str, str, bool, int]] = set()
    rows: dict[tuple[str, int], list[AnswerRecord]] = {}
    times: collections.Counter[tuple[str, int]] = collections.Counter()
    for record in records:
        kinds.add((record.policy, record.sampling, record.has_tools, record.max_tool_calls))
        # A split may ask a question twice: its second answer number 0 begins a second row.
        key = record.problem_id, record.sample
        rows.setdefault((record.problem_id, times[key]), []).append(record)
        times[key] += 1
    if len(kinds) > 1:
        raise ValueError(f"answers of {len(kinds)} policies or conditions: figures are of one")
    kept = [[record for record in same if not record.is_lost] for same in rows.values()]
    most = max(map(len, kept), default=0)

    def column(value: Callable[[AnswerRecord], Any]) -> np.ndarray:
        out = np.zeros((len(kept), most))
        for i, same in enumerate(kept):
            out[i, : len(same)] = [value(record) for record in same]
        return out

    return AnswerTable(
        questions=tuple(problem_id for problem_id, _ in rows),
        levels=tuple(same[0].level for same in rows.values()),
        present=np.asarray([len(same) for same in kept], np.int64),
        lost=np.asarray(
            [len(same) - len(k) for same, k in zip(rows.values(), kept, strict=True)], np.int64
        ),
        correct=column(lambda r: r.is_correct),
        score=column(lambda r: r.score),
        lenient=column(lambda r: np.nan if r.is_lenient is None else r.is_lenient),
        calls=column(lambda r: r.num_calls),
        policy_tokens=column(lambda r: r.policy_tokens),
        tool_tokens=column(lambda r: r.tool_tokens),
        final_answers=tuple(tuple(record.final_answer for record in same) for same in kept),
    )


def check_rests_on_enough(table: AnswerTable, max_lost_fraction: float, what: str) -> None:
    """Raises ValueError where nothing came back, or too many answers are lost to have figures of the others."""
    if not table.answers or table.lost_fraction > max_lost_fraction:
        raise ValueError(
            f"{what}: {rests_on(table)}, more than the {max_lost_fraction:.1%} up to which there are figures"
        )


def rests_on(table: AnswerTable) -> str:
    """`rests on 398 answers, 2 lost (0.5 %)`."""
    return f"rests on {table.answers} answers, {table.num_lost} lost ({100 * table.lost_fraction:.1f} %)"
