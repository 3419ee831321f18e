"""A judge of the user's own: a Python function in any module that can be imported.

  import my_judges
  rl_config.RlConfig.judge = @function_judge.PythonFunction()
  function_judge.PythonFunction.function = @my_judges.same_molecule

Not covered: what the function looks at. It runs in this process, on the text of the policy.
"""

import contextlib
import dataclasses
import math
import queue
import threading
from collections.abc import Sequence
from typing import ClassVar, Protocol

from jaxtool.config.callables import callable_name, check_takes
from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, Verdict
from jaxtool.judges.base import Case, RunPrograms

ARGUMENTS = ("problem", "answer", "response")


class JudgeFunction(Protocol):
    """Says whether one response is right."""

    def __call__(
        self, problem: Problem, answer: str | None, response: str, /
    ) -> bool | float | Verdict:
        """True or False, a score from 0 to 1 (1 is right), or a `Verdict`.

        Args:
          problem: with `question`, and `references`: every acceptable answer.
          answer: what stands in the answer's tag or box; None: there is none.
          response: text of the policy after the last observation.
        """
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class PythonFunction:
    """What `function` says. A function that fails, hangs or says no score ends the run, by name."""

    max_unfit: ClassVar[float] = 0.0
    runs_programs: ClassVar[bool] = False

    function: JudgeFunction
    limit_s: float = 30.0  # wall time for one answer

    def __post_init__(self) -> None:
        check_takes(self.function, ARGUMENTS, "PythonFunction.function")
        check_range(self, "limit_s", above=0)

    def unfit(self, problem: Problem) -> str | None:
        """None: the function alone knows."""
        del problem

    def open(
        self, run_programs: RunPrograms | None = None
    ) -> contextlib.AbstractContextManager["FunctionJudge"]:
        del run_programs
        return contextlib.nullcontext(FunctionJudge(self))


class FunctionJudge:
    """`PythonFunction` at work."""

    def __init__(self, choice: PythonFunction) -> None:
        self._choice = choice
        self._name = f"PythonFunction.function={callable_name(choice.function)}"

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Asks the function in a thread of its own, so that one that hangs is left behind.

        Raises:
          RuntimeError: the function raised, hung, or gave no score.
        """
        replies: queue.SimpleQueue[object] = queue.SimpleQueue()
        threading.Thread(target=self._ask, args=(tuple(cases), replies), daemon=True).start()
        verdicts: list[Verdict | None] = []
        for case in cases:
            where = f"{self._name} on problem {case.problem.problem_id!r}"
            try:
                reply = replies.get(timeout=self._choice.limit_s)
            except queue.Empty:
                raise RuntimeError(
                    f"{where} gave no verdict in limit_s={self._choice.limit_s} s: mend it, or set "
                    "PythonFunction.limit_s"
                ) from None
            if isinstance(reply, BaseException):
                raise RuntimeError(
                    f"{where} raised {type(reply).__name__}: {reply}; answer {case.answer!r}"
                ) from reply
            verdicts.append(self._verdict(reply, where))
        return verdicts

    def _ask(self, cases: Sequence[Case], replies: "queue.SimpleQueue[object]") -> None:
        for case in cases:
            try:
                replies.put(self._choice.function(case.problem, case.answer, case.response))
            except BaseException as error:
                replies.put(error)
                return

    def _verdict(self, reply: object, where: str) -> Verdict:
        if isinstance(reply, Verdict):
            score, verdict = reply.score, reply
        elif isinstance(reply, bool | int | float):
            score = float(reply)
            verdict = Verdict(score=score, is_correct=score == 1.0, how=self._name.split("=")[1])
        else:
            score, verdict = math.nan, None
        if verdict is None or not 0 <= score <= 1:
            raise RuntimeError(
                f"{where} gave {reply!r:.80}; return True, False, a score from 0 to 1, or a Verdict"
            )
        return verdict
