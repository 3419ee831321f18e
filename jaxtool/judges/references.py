"""Whether a problem set can be answered at all by the judge that a run chose. Checked before the first step."""

from collections.abc import Sequence

from jaxtool.core.types import Problem
from jaxtool.judges.base import Judge
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice
from jaxtool.judges.unit_tests import UnitTests


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


def _advice(judge: Judge, problems: Sequence[Problem]) -> str:
    """What to do: the first other judge for which all references are fit."""
    for other in (MultipleChoice(), UnitTests(), Mathematics(), ExactMatch()):
        if type(other) is type(judge):
            continue
        count = sum(other.unfit(problem) is not None for problem in problems)
        if count <= min(other.max_unfit, 0.1) * len(problems):
            return f"choose {type(other).__name__}"
    return "mend these answers, or choose another judge"


def _short(text: str) -> str:
    shown = repr(" ".join(text.split()))
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
