"""The judge of programs: the answer is run in the sandbox against the problem's tests.

A problem's reference holds its tests, in one of two forms:
  {"inputs": ["3\\n4\\n", ...], "outputs": ["7\\n", ...]}   each input is the program's stdin, and what it
                                     prints must be the output, blanks at line ends and the last newline aside
  assert add(3, 4) == 7              Python that runs behind the program, in the same interpreter

What the sandbox could not run is no verdict: the sample is masked. Not covered: programs in other
languages; a program that attacks Python tests from inside can pass them, as it shares their interpreter
(it cannot see inputs' outputs: those are compared outside).
"""

import ast
import contextlib
import dataclasses
import json
import re
import secrets
from collections.abc import Sequence
from typing import ClassVar

from jaxtool.core.ranges import check_range
from jaxtool.core.types import Problem, ToolResult, ToolStatus, Verdict
from jaxtool.judges.base import Case, RunPrograms

_FENCED = re.compile(r"^[ \t]*(`{3,}|~{3,})[^\n]*\n(.*?)^[ \t]*\1[ \t]*$", re.M | re.S)


@dataclasses.dataclass(frozen=True, kw_only=True)
class UnitTests:
    """Right is a program that passes all tests of its problem; the score is the share that it passes.

    Python tests are one test together. The program is the last fenced block of the answer, or the
    answer if it has none; without an answer, the last fenced block of the response.
    """

    max_unfit: ClassVar[float] = 0.0
    runs_programs: ClassVar[bool] = True

    max_tests: int = 32  # of a problem that are run, the first ones

    def __post_init__(self) -> None:
        check_range(self, "max_tests", least=1)

    def unfit(self, problem: Problem) -> str | None:
        """What is wrong with a problem's tests; None: nothing."""
        try:
            read_tests(problem.answer)
        except ValueError as error:
            return str(error)
        return "are more than one" if len(problem.references) > 1 else None

    def open(
        self, run_programs: RunPrograms | None = None
    ) -> contextlib.AbstractContextManager["UnitTestJudge"]:
        if run_programs is None:
            raise ValueError("RlConfig.judge=UnitTests runs programs, and there is no sandbox")
        return contextlib.nullcontext(UnitTestJudge(run_programs, self.max_tests))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrintTest:
    """A program gets `stdin` and must print `stdout`."""

    stdin: str
    stdout: str


def read_tests(reference: str) -> str | list[PrintTest]:
    """The tests that a reference holds: Python, or inputs with outputs.

    Raises:
      ValueError: it holds neither; the message goes on a sentence "references ...".
    """
    try:
        table = json.loads(reference)
    except ValueError:
        table = None
    if isinstance(table, dict):
        inputs, outputs = _texts(table.get("inputs")), _texts(table.get("outputs"))
        if inputs is None or outputs is None:
            raise ValueError('are JSON without "inputs" and "outputs", two lists of texts')
        if not inputs or len(inputs) != len(outputs):
            raise ValueError(f"have {len(inputs)} inputs and {len(outputs)} outputs")
        return [PrintTest(stdin=i, stdout=o) for i, o in zip(inputs, outputs, strict=True)]
    try:
        body = ast.parse(reference).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ValueError("are neither Python nor JSON of inputs and outputs") from None
    if all(isinstance(statement, ast.Expr) and _is_literal(statement.value) for statement in body):
        raise ValueError(
            "test nothing: Python with asserts is needed, or JSON of inputs and outputs"
        )
    return reference


def program_of(case: Case) -> str | None:
    """The program that a response hands in; None: there is none."""
    text = case.response if case.answer is None else case.answer
    blocks = _FENCED.findall(text)
    if blocks:
        return blocks[-1][1]
    return case.answer


class UnitTestJudge:
    """`UnitTests` at work."""

    def __init__(self, run_programs: RunPrograms, max_tests: int) -> None:
        self._run_programs, self._max_tests = run_programs, max_tests

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Runs all tests of all cases together."""
        programs: list[str] = []
        wanted: list[tuple[int, str, bool]] = []  # case, what must be printed, all of it
        verdicts: list[Verdict | None] = [None] * len(cases)
        for i, case in enumerate(cases):
            program = program_of(case)
            if program is None:
                verdicts[i] = Verdict.plain(False, "no program")
                continue
            for text, printed, is_whole in self._runs(program, case.problem.answer):
                programs.append(text)
                wanted.append((i, printed, is_whole))
        results = self._run_programs(programs) if programs else []
        passed: dict[int, list[bool | None]] = {}
        for (i, printed, is_whole), result in zip(wanted, results, strict=True):
            passed.setdefault(i, []).append(_passes(result, printed, is_whole=is_whole))
        for i, each in passed.items():
            verdicts[i] = _verdict(each)
        return verdicts

    def _runs(self, program: str, reference: str) -> list[tuple[str, str, bool]]:
        """(program, what it must print, whether that is all) of each test."""
        tests = read_tests(reference)
        if isinstance(tests, str):
            # Printed behind the last test: a program that ends the interpreter before it passes nothing.
            mark = secrets.token_hex(16)
            return [(f"{program}\n\n{tests}\n\nprint()\nprint({mark!r})\n", mark, False)]
        return [
            (_with_stdin(program, test.stdin), test.stdout, True)
            for test in tests[: self._max_tests]
        ]


def _with_stdin(program: str, stdin: str) -> str:
    """The program as text inside another one, so that its `from __future__` lines stay the first."""
    return (
        "import io, sys\n"
        f"sys.stdin = io.TextIOWrapper(io.BytesIO({stdin.encode()!r}), encoding='utf-8')\n"
        "del io, sys\n"
        f"exec(compile({program!r}, '<code>', 'exec'), globals())\n"
    )


def _passes(result: ToolResult | None, printed: str, *, is_whole: bool) -> bool | None:
    """Whether one run is as wanted; None: there was none."""
    if result is None:
        return None
    if result.status is not ToolStatus.OK:
        return False
    if is_whole:
        return not result.is_truncated and _lines(result.stdout) == _lines(printed)
    return result.stdout.rstrip("\n").rpartition("\n")[2] == printed


def _lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.rstrip().split("\n")]


def _verdict(passed: Sequence[bool | None]) -> Verdict | None:
    if any(each is None for each in passed):
        return None
    count = sum(bool(each) for each in passed)
    return Verdict(
        score=count / len(passed),
        is_correct=count == len(passed),
        how=f"{count} of {len(passed)} tests",
    )


def _texts(value: object) -> list[str] | None:
    """A list of texts; None for anything else."""
    if not isinstance(value, list):
        return None
    texts = [item for item in value if isinstance(item, str)]
    return texts if len(texts) == len(value) else None


def _is_literal(node: ast.expr) -> bool:
    return isinstance(
        node, ast.Constant | ast.Name | ast.UnaryOp | ast.BinOp | ast.Tuple | ast.List
    )
