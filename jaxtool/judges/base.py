"""What a judge is: a choice of the run that, once open, turns cases into verdicts.

A judge is a frozen dataclass that a gin file binds to `RlConfig.judge`. `open` gives the object that
judges and holds what that needs, such as processes. Judges see an answer and its references; the text
around it, the `AnswerFormat`, belongs to the renderer.
"""

import dataclasses
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import ClassVar, Protocol

from jaxtool.core.types import Problem, ToolResult, Verdict

# Runs programs in the run's sandbox, together; None where the infrastructure failed after all retries.
RunPrograms = Callable[[Sequence[str]], list[ToolResult | None]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Case:
    """One response to be judged."""

    problem: Problem
    answer: str | None  # what the answer format found in the response; None: there is no answer
    response: str  # the text that it was looked for in; of the policy alone


class OpenJudge(Protocol):
    """A judge at work."""

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """A verdict for each case, in order; None: the infrastructure failed, nothing is known.

        Raises:
          RuntimeError: the judge itself cannot work.
        """
        ...


class Judge(Protocol):
    """A choice of judge. Implementations are frozen dataclasses."""

    # Share of a problem set that may be unfit for the judge; above it a run does not start.
    max_unfit: ClassVar[float]
    runs_programs: ClassVar[bool]  # needs a sandbox

    def unfit(self, problem: Problem) -> str | None:
        """Why no answer can be right by a problem's references, as the end of a sentence: "are words".

        None: an answer can.
        """
        ...

    def open(self, run_programs: RunPrograms | None = None) -> AbstractContextManager[OpenJudge]:
        """Starts what judging needs.

        Args:
          run_programs: for judges that run code; None: there is no sandbox.

        Raises:
          ValueError: the judge needs a sandbox and there is none.
        """
        ...
