"""A judge that says what a test wants to hear, and keeps what it was asked."""

import dataclasses
from collections.abc import Sequence

from jaxtool.core.types import Verdict
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.judges.base import Case
from jaxtool.judges.judging import Judging


@dataclasses.dataclass
class AllRight:
    """Says yes to everything."""

    asked: list[Case] = dataclasses.field(default_factory=list)

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        self.asked += cases
        return [Verdict.plain(True, "a test") for _ in cases]


def all_right() -> Judging:
    return Judging(format=AnswerFormat(), judge=AllRight())
