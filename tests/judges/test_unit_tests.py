"""Programs against their tests, in a real sandbox."""

import json
from asyncio import Runner

import pytest

from jaxtool.core.types import Problem, ToolUnavailable
from jaxtool.judges.base import Case
from jaxtool.judges.programs import programs_in
from jaxtool.judges.unit_tests import UnitTests, program_of, read_tests
from jaxtool.tools.local_server import start_local_server
from jaxtool.tools.sandbox_client import SandboxClient, SandboxClientConfig

ASSERTS = "assert add(3, 4) == 7\nassert add(0, 0) == 0"
SUMS = json.dumps({"inputs": ["3 4\n", "10 -2\n"], "outputs": ["7\n", "8"]})
READS = "a, b = map(int, input().split())\nprint(a + b)"


def case(answer: str | None, tests: str, response: str = "") -> Case:
    problem = Problem(problem_id="p", question="", answer=tests)
    return Case(problem=problem, answer=answer, response=response)


@pytest.fixture(scope="module")
def run_programs():
    with start_local_server() as address, Runner() as runner:
        client = SandboxClient((address,), SandboxClientConfig())
        yield programs_in(client, runner)
        runner.run(client.close())


@pytest.mark.parametrize(
    ("program", "tests", "score"),
    [
        ("def add(a, b):\n    return a + b", ASSERTS, 1),
        ("def add(a, b):\n    return a * b", ASSERTS, 0),
        ("import sys\nsys.exit(0)", ASSERTS, 0),  # ends before any test
        ("import os\nprint('all passed')\nos._exit(0)", ASSERTS, 0),
        ("def add(a, b:", ASSERTS, 0),
        ("def add(a, b):\n    print('adding')\n    return a + b", ASSERTS, 1),
        ("from __future__ import annotations\n" + READS, SUMS, 1),
        (READS + "\nexit(0)", SUMS, 1),
        (READS + "\n1 / 0", SUMS, 0),  # right, and then an error
        ("print(7)", SUMS, 0.5),
        ("print('7 ')", SUMS, 0.5),  # blanks at a line's end do not count
        ("print('7 8')", SUMS, 0),
        ("import sys\na, b = sys.stdin.buffer.read().split()\nprint(int(a) + int(b))", SUMS, 1),
        ("if __name__ == '__main__':\n    " + READS.replace("\n", "\n    "), SUMS, 1),
        ("while True: pass", SUMS.replace("-2", "-3"), 0),
    ],
)
def test_verdicts(run_programs, program, tests, score):
    if "while" in program:
        tests = json.dumps({"inputs": [""], "outputs": ["1"]})
    with UnitTests().open(run_programs) as judge:
        [verdict] = judge.judge([case(program, tests)])
    assert verdict is not None
    assert (verdict.score, verdict.is_correct) == (score, score == 1)


def test_where_the_program_stands():
    block = "Here:\n```python\nx = 1\n```\nand\n~~~\nx = 2\n~~~\n"
    assert program_of(case(block, "")) == "x = 2\n"
    assert program_of(case("x = 3", "", response=block)) == "x = 3"
    assert program_of(case(None, "", response=block)) == "x = 2\n"
    assert program_of(case(None, "", response="no program")) is None


def test_no_program_is_wrong_and_runs_nothing():
    def never(programs):
        raise AssertionError(programs)

    with UnitTests().open(never) as judge:
        [verdict] = judge.judge([case(None, ASSERTS)])
    assert verdict is not None
    assert (verdict.score, verdict.how) == (0, "no program")


def test_a_sandbox_that_fails_gives_no_verdict():
    class Broken:
        name = "broken"

        async def execute(self, code):
            raise ToolUnavailable("down")

        async def close(self):
            pass

    with Runner() as runner, UnitTests().open(programs_in(Broken(), runner)) as judge:
        assert judge.judge([case("x = 1", ASSERTS), case(None, ASSERTS)])[0] is None


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("42", "test nothing"),
        ("Paris", "test nothing"),
        ("Chief of Protocol", "neither Python nor JSON"),
        ('{"inputs": ["1"]}', 'without "inputs" and "outputs"'),
        ('{"inputs": ["1"], "outputs": []}', "1 inputs and 0 outputs"),
        ('{"inputs": [], "outputs": []}', "0 inputs and 0 outputs"),
        ('{"inputs": [1], "outputs": ["1"]}', "two lists of texts"),
    ],
)
def test_references_without_tests_are_unfit(reference, message):
    with pytest.raises(ValueError, match=message):
        read_tests(reference)
    assert UnitTests().unfit(Problem(problem_id="p", question="", answer=reference)) is not None


def test_without_a_sandbox_it_is_refused():
    with pytest.raises(ValueError, match="runs programs, and there is no sandbox"):
        UnitTests().open(None)
