"""Files of responses to be judged, for `experiments.judge` and for tests: rows in, verdicts with their reasons out."""

import dataclasses
import importlib
from asyncio import Runner
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from jaxtool.core.json_lines import as_text, read_rows
from jaxtool.core.types import Problem
from jaxtool.judges.answer_format import AnswerFormat
from jaxtool.judges.base import Case, Judge
from jaxtool.judges.function_judge import PythonFunction
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.programs import programs_in
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice, TokenF1
from jaxtool.judges.tool_calls import ToolCalls
from jaxtool.judges.unit_tests import UnitTests
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

_NAMED: dict[str, Judge] = {
    "math": Mathematics(),
    "exact_match": ExactMatch(),
    "f1": TokenF1(),
    "choice": MultipleChoice(),
    "unit_tests": UnitTests(),
    "calls": ToolCalls(),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a file of cases."""

    row_id: str
    problem: Problem
    response: str
    judge: str
    want: bool | None = None  # None: nothing is wanted
    note: str = ""  # why `want` is disputed; such a row does not count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a row."""

    row: Row
    got: bool
    score: float
    how: str
    answer: str | None

    @property
    def want(self) -> bool | None:
        return self.row.want

    @property
    def counts(self) -> bool:
        return not self.row.note

    @property
    def differs(self) -> bool:
        return self.want is not None and self.want != self.got

    def line(self) -> str:
        """For a person: id, verdict, how it came about, reference, answer, what was wanted."""
        verdict = "right" if self.got else "wrong"
        golds = " or ".join(repr(r) for r in self.row.problem.references)
        wanted = ""
        if self.differs:
            wanted = f"  WANTED {'right' if self.want else 'wrong'}"
            wanted += f" (disputed: {self.row.note})" if self.row.note else ""
        answer = "none" if self.answer is None else repr(self.answer)
        return f"{self.row.row_id}  {verdict}  {self.how}  gold {golds}  answer {answer}{wanted}"

    def as_json(self) -> dict[str, Any]:
        return {
            "id": self.row.row_id,
            "got": self.got,
            "want": self.want,
            "how": self.how,
            "score": self.score,
            "answer": self.answer,
            "judge": self.row.judge,
            "counts": self.counts,
        }


def judge_named(name: str) -> Judge:
    """The judge of a name, or `module:function`.

    Raises:
      ValueError: there is no such judge, or the function cannot be imported or called.
    """
    if name in _NAMED:
        return _NAMED[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise ValueError(
            f"there is no judge {name!r}; there are {', '.join(_NAMED)}, and MODULE:FUNCTION"
        )
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"judge {name!r}: {error}") from None
    return PythonFunction(function=found)


def read_cases(path: Path, judge: str) -> list[Row]:
    """The rows of a file of JSON lines.

    Args:
      judge: name of the judge for rows that name none.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a row is no case; file, line, key.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of cases {path}")
    rows = [_row(row, f"{path}:{number}", str(number), judge) for number, row in read_rows(path)]
    if not rows:
        raise ValueError(f"{path}: the file holds no case")
    return rows


def judge_rows(
    rows: Sequence[Row], form: AnswerFormat, sandbox_addresses: tuple[str, ...] = ()
) -> list[Outcome]:
    """A verdict for each row, in order.

    Args:
      form: where the answer stands.
      sandbox_addresses: running servers for unit tests; without one a server is started.

    Raises:
      RuntimeError: the sandbox failed on a row after all retries.
    """
    cases = [
        Case(problem=row.problem, answer=form.extract(row.response), response=row.response)
        for row in rows
    ]
    outcomes: dict[int, Outcome] = {}
    with ExitStack() as stack:
        run_programs = None
        for name in dict.fromkeys(row.judge for row in rows):
            choice = judge_named(name)
            if isinstance(choice, UnitTests) and run_programs is None:
                runner = stack.enter_context(Runner())
                client = open_sandbox(stack, runner, sandbox_addresses)
                run_programs = programs_in(client, runner)
            judge = stack.enter_context(choice.open(run_programs))
            chosen = [i for i, row in enumerate(rows) if row.judge == name]
            for i, verdict in zip(chosen, judge.judge([cases[i] for i in chosen]), strict=True):
                if verdict is None:
                    raise RuntimeError(
                        f"row {rows[i].row_id}: no verdict; the sandbox, or a worker, failed after all retries"
                    )
                outcomes[i] = Outcome(
                    row=rows[i],
                    got=verdict.is_correct,
                    score=verdict.score,
                    how=verdict.how,
                    answer=cases[i].answer,
                )
    return [outcomes[i] for i in range(len(rows))]


def open_sandbox(stack: ExitStack, runner: Runner, addresses: tuple[str, ...]) -> SandboxClient:
    """A client of running servers, or of one that is started; it is closed with the stack."""
    addresses = addresses or (stack.enter_context(start_local_server()),)
    client = SandboxClient(addresses, SandboxClientConfig())
    stack.callback(lambda: runner.run(client.close()))
    return client


def _row(row: dict[str, Any], where: str, number: str, judge: str) -> Row:
    key = "gold" if "gold" in row else "answer"
    golds = row.get(key)
    golds = [as_text(gold, key, where) for gold in (golds if isinstance(golds, list) else [golds])]
    if not golds:
        raise ValueError(f"{where}: key {key!r} is an empty list")
    want, response = row.get("want"), row.get("response")
    if want is not None and not isinstance(want, bool):
        raise ValueError(f"{where}: key 'want' must be true or false, not {want!r}")
    if not isinstance(response, str):
        raise ValueError(f"{where}: key 'response' must be a text, not {response!r:.40}")
    name = row.get("judge", judge)
    if not isinstance(name, str):
        raise ValueError(f"{where}: key 'judge' must be a name, not {name!r:.40}")
    try:
        judge_named(name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    row_id = str(row.get("id", number))
    problem = Problem(
        problem_id=row_id,
        question=str(row.get("question", "")),
        answer=golds[0],
        answers=tuple(golds) if len(golds) > 1 else (),
    )
    return Row(
        row_id=row_id,
        problem=problem,
        response=response,
        judge=name,
        want=want,
        note=str(row.get("note") or ""),
    )
