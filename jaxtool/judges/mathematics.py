"""The mathematical judge: our own exact comparison, and math-verify for what it cannot read.

Covered: several references, counts of what happened, when math-verify is asked. Not covered: the rules of
equality (`comparison`), processes (`worker_pool`), where the answer stands (`answer_format`).
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import ClassVar

from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, Verdict
from jaxtool.judges import comparison
from jaxtool.judges.base import Case, RunPrograms
from jaxtool.judges.comparison import Finding
from jaxtool.judges.lenient import last_integer_is
from jaxtool.judges.word_match import is_words
from jaxtool.judges.worker_pool import STALLED, WorkerPool

# These make math-verify compute without end, and no reference of MATH-500 or AIME has one.
_ENDLESS = re.compile(
    r"\\(?:int|iint|oint|sum|prod|lim|limsup|liminf|bigcup|max|min|[dt]?binom|Gamma)(?![A-Za-z])|!|factorial|binomial|gamma"
)
_TOWER = re.compile(r"\^\s*\{?[^{}^]*\^|\^\s*\{?\d{2,}|\d{20,}|\d[eE]\d")
_VARIABLE = re.compile(r"(?<![A-Za-z\\])(?![ei])[A-Za-z](?![A-Za-z])")
_MAX_HARD_LENGTH = 300
_MAX_HARD_NESTING = 5  # its parser takes seconds for twenty roots in each other


@dataclasses.dataclass(kw_only=True)
class CheckCounts:
    """What became of the answers judged so far."""

    without_answer: int = 0
    by_comparison: int = 0
    by_rounding: int = 0  # of those: right because the reference is a rounded number
    by_math_verify: int = 0
    timed_out: int = 0  # over the CPU limit; judged wrong
    stalled: int = 0  # no reply and no CPU time used: the machine's fault; no verdict
    failed: int = 0  # math-verify raised or died; judged wrong


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mathematics:
    """Right is what is mathematically equal to a reference."""

    max_unfit: ClassVar[float] = 0.5  # words are compared as words; most of a set should not be
    runs_programs: ClassVar[bool] = False

    num_workers: int = 2  # processes for math-verify, at most 1 GiB each; few answers need them
    cpu_limit_s: float = 0.5  # CPU seconds for one answer; 99 % of real ones take under 0.06
    # A reference with six digits or more, five of them behind the point, may be a rounded one: 3.33333.
    rounded_references: bool = True
    # Beside the verdict, ReTool's second rule: the last integer of the last line (Verdict.is_lenient).
    reports_lenient: bool = False

    def __post_init__(self) -> None:
        check_range(self, "num_workers", least=1)
        check_range(self, "cpu_limit_s", above=0)

    def unfit(self, problem: Problem) -> str | None:
        """ "are words" where a reference is no mathematics."""
        return "are words" if all(map(is_words, problem.references)) else None

    def open(self, run_programs: RunPrograms | None = None) -> "MathematicsJudge":
        """The judge, without any process yet."""
        del run_programs
        return MathematicsJudge(self)


class MathematicsJudge:
    """`Mathematics` at work. A context manager; workers start when the first hard answer comes.

    Not for use from several threads at once.
    """

    def __init__(self, settings: Mathematics) -> None:
        """Starts nothing."""
        self._settings = settings
        workers = min(settings.num_workers, max(2, os.cpu_count() or 1))
        self.pool = WorkerPool(num_workers=workers, cpu_limit_s=settings.cpu_limit_s)
        self.counts = CheckCounts()

    def __enter__(self) -> "MathematicsJudge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers. The judge may be used again."""
        self.pool.close()

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Whether the answer of each case is equivalent to its reference.

        Raises:
          RuntimeError: a worker cannot be started.
        """
        found = self.findings([(case.answer, case.problem.references) for case in cases])
        return list(map(self._verdict, cases, found))

    def findings(self, pairs: Sequence[tuple[str | None, Sequence[str]]]) -> list[Finding]:
        """For each answer and its references, of which any is right: what is found, and how.

        Nothing is known (None) where a worker stalled and no other reference made the answer right.

        Raises:
          RuntimeError: a worker cannot be started.
        """
        found: list[Finding] = []
        hard: list[tuple[int, tuple[str, str]]] = []
        for i, (answer, references) in enumerate(pairs):
            finding, open_references = self._compared(answer, references)
            found.append(finding)
            hard += [(i, (answer or "", reference)) for reference in open_references]
        stalled: set[int] = set()
        replies = self.pool.ask([question for _, question in hard]) if hard else []
        for (i, _), reply in zip(hard, replies, strict=True):
            finding = self._of_reply(reply)
            if finding.is_equal or (not found[i].is_equal and i not in stalled):
                found[i] = finding
            if finding.is_equal is None:
                stalled.add(i)
        return found

    def _compared(self, answer: str | None, references: Sequence[str]) -> tuple[Finding, list[str]]:
        """What our own comparison says, and the references for which math-verify is to be asked."""
        if answer is None:
            self.counts.without_answer += 1
            return Finding(False, "no answer"), []
        rounded = self._settings.rounded_references
        findings = [
            comparison.compare(answer, reference, rounded_references=rounded)
            for reference in references
        ]
        best = next((finding for finding in findings if finding.is_equal), findings[0])
        unknown = [
            reference
            for reference, finding in zip(references, findings, strict=True)
            if finding.is_equal is None and _may_ask(answer, reference)
        ]
        if best.is_equal or not unknown:
            self.counts.by_comparison += 1
            self.counts.by_rounding += best.how == comparison.ROUNDED
            return Finding(bool(best.is_equal), best.how), []
        return best, unknown

    def _of_reply(self, reply: dict[str, object]) -> Finding:
        if "is_equivalent" in reply:
            self.counts.by_math_verify += 1
            return Finding(bool(reply["is_equivalent"]), "math-verify")
        if reply["error"] == STALLED:
            self.counts.stalled += 1
            return Finding(None, "math-verify: stalled")
        if reply.get("is_late"):
            self.counts.timed_out += 1
        else:
            self.counts.failed += 1
        return Finding(False, f"math-verify: {reply['error']}")

    def _verdict(self, case: Case, finding: Finding) -> Verdict | None:
        if finding.is_equal is None:
            return None
        is_correct = finding.is_equal
        is_lenient = None
        if self._settings.reports_lenient:
            is_lenient = is_correct or any(
                last_integer_is(case.response, reference) for reference in case.problem.references
            )
        return Verdict(
            score=float(is_correct), is_correct=is_correct, how=finding.how, is_lenient=is_lenient
        )


def _may_ask(answer: str, reference: str) -> bool:
    """Whether math-verify may see these two: both have variables, and neither can run without end.

    Its comparison of constants is numeric, and takes 2^-70 for zero: only formulas of variables reach it.
    """
    return all(
        len(text) <= _MAX_HARD_LENGTH
        and _nesting(text) <= _MAX_HARD_NESTING
        and not _ENDLESS.search(text)
        and not _TOWER.search(text)
        and bool(_VARIABLE.search(text))
        for text in (answer, reference)
    )


def _nesting(text: str) -> int:
    depth = most = 0
    for character in text:
        depth += (character in "{(") - (character in "})")
        most = max(most, depth)
    return most
