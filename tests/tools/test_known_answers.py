"""A server that turns wrong is named with program, expected and got; one that is gone is counted."""

import asyncio

import pytest
from helpers.fakes import FailingTool, ScriptedTool

from jaxtool.core.types import ToolResult, ToolStatus
from jaxtool.tools.known_answers import KnownAnswers, snippets_of
from jaxtool.tools.preflight import SNIPPETS


def answers(number, **changed):
    """The right answers of a round, with those of named snippets changed."""
    return {
        s.code: changed.get(
            s.name,
            ToolResult(
                status=s.status,
                stdout=s.stdout or "",
                last_value=s.last_value or "",
                error_type=s.error_type or "",
                stderr=s.stderr_has or "",
            ),
        )
        for s in snippets_of(number)
    }


class Flaky(ScriptedTool):
    """Gives the first call another status."""

    def __init__(self, results, status):
        super().__init__(results)
        self.status = status

    async def execute(self, code):
        result = await super().execute(code)
        return ToolResult(status=self.status) if len(self.calls) == 1 else result


def ask(number, **tools):
    return asyncio.run(KnownAnswers(tools).ask(number))


def test_rounds_ask_a_fresh_product_and_go_through_the_preflights_programs():
    product, other = snippets_of(3)
    assert (product.code, product.stdout) == (
        "print(123456795 * 987654318)",
        "121932636668190810\n",
    )
    assert other == SNIPPETS[3]
    rounds = range(len(SNIPPETS))
    assert [snippets_of(i)[1] for i in rounds] == list(SNIPPETS)
    assert snippets_of(len(SNIPPETS))[1] == SNIPPETS[0]
    products = [snippets_of(i)[0].stdout for i in range(1000)]
    assert len(set(products)) == 1000
    assert min(len(set(product)) for product in products) > 5  # digits and the newline


@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_right_answers_pass(number):
    found = ask(number, first=ScriptedTool(answers(number)), second=ScriptedTool(answers(number)))
    assert (found.programs, found.unreachable, found.wrong) == (4, (), "")


@pytest.mark.parametrize(
    ("result", "difference"),
    [
        (
            ToolResult(status=ToolStatus.OK, stdout="121932636668190811\n"),
            r"got '121932636668190811\n'",
        ),
        (ToolResult(status=ToolStatus.OK), "got ''"),
        (
            ToolResult(status=ToolStatus.OK, stdout="121932636668190810\n", last_value="7"),
            "got '7'",
        ),
        (ToolResult(status=ToolStatus.ERROR, stderr="NameError"), "got 'error' ('NameError')"),
        (ToolResult(status=ToolStatus.KILLED), "got 'killed'"),
    ],
)
def test_a_wrong_answer_of_one_server_is_named_in_one_line(result, difference):
    wrong = ScriptedTool(answers(3, product=result))
    found = ask(3, good=ScriptedTool(answers(3)), bad=wrong)
    assert found.wrong.startswith(
        "the sandbox at bad answers wrongly: program 'print(123456795 * 987654318)': "
    )
    assert difference in found.wrong
    assert "\n" not in found.wrong


@pytest.mark.parametrize("status", [ToolStatus.WALL_LIMIT, ToolStatus.CPU_LIMIT, ToolStatus.KILLED])
def test_a_busy_machine_is_asked_once_more(status):
    assert ask(0, busy=Flaky(answers(0), status)).wrong == ""


def test_a_wrong_output_is_not_asked_again():
    found = ask(0, wrong=Flaky(answers(0), ToolStatus.OK))
    assert "stdout: expected" in found.wrong


def test_a_server_that_is_gone_is_counted_and_not_wrong():
    gone = FailingTool(ScriptedTool({}), failures=2)
    found = ask(0, gone=gone, here=ScriptedTool(answers(0)))
    assert (found.programs, found.wrong) == (4, "")
    assert found.unreachable == ("sandbox at fake: UNAVAILABLE: scripted failure",)
