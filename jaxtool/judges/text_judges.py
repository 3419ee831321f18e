"""Judges of words: exact match, F1 of words, multiple choice. Several references: any of them is right.

Not covered: mathematics (`mathematics`), where the answer stands (`answer_format`).
"""

import abc
import contextlib
import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar

from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, Verdict
from jaxtool.judges.base import Case, RunPrograms
from jaxtool.judges.word_match import f1, normalized

_NO_ANSWER = Verdict.plain(False, "no answer")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_PREFIX = re.compile(
    r"^(?:the\s+)?(?:correct\s+|final\s+)?(?:options?|choices?|answers?|letters?)\b\s*(?:is|are|:|=)?\s*",
    re.I,
)
_SEPARATOR = re.compile(r"\s*(?:,|;|/|&|\||\+|\band\b|\s)\s*", re.I)
_ITEM = re.compile(r"[(\[{]?\s*([A-Za-z])\s*[)\]}.:]?")
# "C. Paris", "(C) 42": a letter with its mark, then the option's own text.
_LABELLED = re.compile(r"(?:[(\[]\s*([A-Za-z])\s*[)\]]|([A-Za-z])\s*[).:])\s*(\S.*)", re.S)
_ANOTHER = re.compile(r"[(\[]\s*[A-Z]\s*[)\]]|\b[A-Z]\s*[).]|\b(?:or|and|not)\s+[(\[]?[A-Z]\b")


class _OfWords(abc.ABC):
    """A judge that is one function of an answer and its references, and needs nothing to be open."""

    max_unfit: ClassVar[float] = 0.0
    runs_programs: ClassVar[bool] = False

    @abc.abstractmethod
    def compare(self, answer: str, references: Sequence[str]) -> Verdict:
        """The verdict on an answer that is there."""

    def unfit(self, problem: Problem) -> str | None:
        """What is wrong with a problem's references for this judge; None: nothing."""
        return None if all(normalized(r) for r in problem.references) else "are empty"

    def open(
        self, run_programs: RunPrograms | None = None
    ) -> contextlib.AbstractContextManager["PureJudge"]:
        del run_programs
        return contextlib.nullcontext(PureJudge(self.compare))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExactMatch(_OfWords):
    """Right is an answer with the same words in the same order as a reference (SQuAD's exact match)."""

    def compare(self, answer: str, references: Sequence[str]) -> Verdict:
        return _exact_match(answer, references)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenF1(_OfWords):
    """The score is the F1 of words, the best over the references (SQuAD, HotpotQA)."""

    # From which score an answer counts as right. None: only with the same words in the same order, so that
    # accuracy is the exact match and the score its softer sister.
    threshold: float | None = None

    def __post_init__(self) -> None:
        check_range(self, "threshold", above=0, most=1)

    def compare(self, answer: str, references: Sequence[str]) -> Verdict:
        score = max(f1(answer, reference) for reference in references)
        if self.threshold is None:
            is_correct = _exact_match(answer, references).is_correct
        else:
            is_correct = score >= self.threshold
        return Verdict(score=score, is_correct=is_correct, how=f"F1 {score:.2f}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultipleChoice(_OfWords):
    """Right is the letter of the reference, or all its letters where there are several.

    Read are C, (C), C., c, \\text{C}, "Option C", "C. Paris", "A, C", "A and C" and AC.
    """

    letters: str = "ABCDEFGHIJ"  # that options may have

    def __post_init__(self) -> None:
        if not self.letters or any(letter not in _LETTERS for letter in self.letters):
            raise ValueError(
                f"MultipleChoice.letters={self.letters!r}: capital letters A to Z are needed"
            )

    def unfit(self, problem: Problem) -> str | None:
        """What is wrong with a problem's references for this judge; None: nothing."""
        is_read = all(choices(r, self.letters) for r in problem.references)
        return None if is_read else f"are no letters of {self.letters}"

    def compare(self, answer: str, references: Sequence[str]) -> Verdict:
        found = choices(answer, self.letters)
        if not found:
            return Verdict.plain(False, "no letter")
        is_correct = any(found == choices(reference, self.letters) for reference in references)
        return Verdict.plain(is_correct, f"chose {''.join(sorted(found))}")


class PureJudge:
    """A judge that is one function of an answer and its references."""

    def __init__(self, compare: Callable[[str, Sequence[str]], Verdict]) -> None:
        self._compare = compare

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        return list(self._verdicts(cases))

    def _verdicts(self, cases: Sequence[Case]) -> Iterator[Verdict]:
        for case in cases:
            if case.answer is None:
                yield _NO_ANSWER
            else:
                yield self._compare(case.answer, case.problem.references)


def choices(text: str, letters: str) -> frozenset[str]:
    """The letters that a text chooses; empty where it chooses none, or does not say which.

    "Option C" is {C}; "A, C", "A and C", "AC" and "CA" are {A, C}; "C. Paris" is {C}; "C or D" is none.

    Args:
      letters: of the options; capital.
    """
    text = _opened(text)
    text = _PREFIX.sub("", text).strip()
    if not text:
        return frozenset()
    if re.fullmatch(f"[{letters}]{{1,{len(letters)}}}", text):
        return frozenset(text) if len(set(text)) == len(text) else frozenset()
    parts = [part for part in _SEPARATOR.split(text) if part]
    items = [_ITEM.fullmatch(part) for part in parts]
    found = [item[1].upper() for item in items if item is not None]
    if len(found) == len(parts):
        is_known = all(letter in letters for letter in found)
        return frozenset(found) if is_known and len(set(found)) == len(found) else frozenset()
    labelled = _LABELLED.fullmatch(text)
    if labelled is None or _ANOTHER.search(labelled[3]):
        return frozenset()
    letter = (labelled[1] or labelled[2]).upper()
    return frozenset(letter) if letter in letters else frozenset()


def _opened(text: str) -> str:
    """Without LaTeX's and Markdown's wrappings: \\text{(C)} and **C** are (C) and C."""
    command = re.compile(
        r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mathit|mbox|boxed|fbox)\s*\{([^{}]*)\}"
    )
    while (opened := command.sub(r"\1", text)) != text:
        text = opened
    return re.sub(r"[*_`$\"']|\\[ ,;:!()\[\]]", " ", text).strip().rstrip(".").strip()


def _exact_match(answer: str, references: Sequence[str]) -> Verdict:
    words = normalized(answer)
    is_correct = bool(words) and any(words == normalized(reference) for reference in references)
    return Verdict.plain(is_correct, "exact match")
