"""Whether a problem set can be answered at all by the judge that a run chose. Checked before the first step."""

import re
from collections import Counter
from collections.abc import Sequence

from jaxtool.core.types import Problem
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice
from jaxtool.judges.tool_calls import ToolCalls
from jaxtool.judges.unit_tests import UnitTests

_INTEGER = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+|[-+]?\d+")
_NUMBER = re.compile(r"[-+$]?\s*\d[\d,]*(?:\.\d+)?\s*%?|[-+]?\.\d+|[-+]?\d+\s*/\s*\d+")
# The others that are asked for a set of references, the narrowest first: ExactMatch takes nearly anything.
_JUDGES: tuple[Judge, ...] = (
    MultipleChoice(),
    UnitTests(),
    ToolCalls(),
    Mathematics(),
    ExactMatch(),
)
_FEW = 0.1  # of the references may be unfit for a judge that is advised


def check_references(judge: Judge, problems: Sequence[Problem]) -> str:
    """One line that says what the references are for the judge.

    Raises:
      ValueError: more of them are unfit than `judge.max_unfit`; one line with the count, an example and
        the judge that fits.
    """
    unfit = [(problem, reason) for problem in problems if (reason := judge.unfit(problem))]
    name = type(judge).__name__
    if not unfit:
        return f"{name}: {len(problems)} answers can be judged"
    problem, reason = unfit[0]
    found = (
        f"{len(unfit)} of {len(problems)} answers {reason}, such as {_short(problem.answer)} of "
        f"{problem.problem_id}"
    )
    if len(unfit) <= judge.max_unfit * len(problems):
        return f"{name}: {found}"
    raise ValueError(f"RlConfig.judge={name}: {found}; {_advice(judge, problems)}")


def fitting_judge(problems: Sequence[Problem], besides: Judge | None = None) -> Judge | None:
    """The narrowest judge for which nearly all references are fit; None: there is none.

    Args:
      besides: a judge that is not wanted.
    """
    for other in _JUDGES:
        if type(other) is type(besides):
            continue
        count = sum(other.unfit(problem) is not None for problem in problems)
        if count <= min(other.max_unfit, _FEW) * len(problems):
            return other
    return None


def kind_of(problem: Problem) -> str:
    """What a problem's first reference is: "integer", "number", "letter", "words", "calls", "tests" or "mathematics"."""
    text = problem.answer.strip()
    if _INTEGER.fullmatch(text):
        return "integer"
    if _NUMBER.fullmatch(text):
        return "number"
    if re.fullmatch(r"\(?[A-J]\)?", text):
        return "letter"
    for kind, judge in (("tests", UnitTests()), ("calls", ToolCalls())):
        if judge.unfit(problem) is None:
            return kind
    return "words" if Mathematics().unfit(problem) else "mathematics"


def kinds_of(problems: Sequence[Problem]) -> dict[str, int]:
    """How many problems have an answer of each kind, the most frequent first."""
    return dict(Counter(map(kind_of, problems)).most_common())


def _advice(judge: Judge, problems: Sequence[Problem]) -> str:
    """What to do: another judge for which the references are fit."""
    other = fitting_judge(problems, besides=judge)
    return (
        "mend these answers, or choose another judge"
        if other is None
        else (f"choose {type(other).__name__}")
    )


def _short(text: str) -> str:
    shown = repr(" ".join(text.split()))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
