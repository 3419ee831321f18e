"""The fakes behave as the tests of other packages assume."""

import asyncio

import pytest
from helpers.fakes import ArithmeticTool, FailingTool, ScriptedTool, SlowTool

from jaxtool.core.types import ToolResult, ToolStatus, ToolUnavailable


@pytest.mark.parametrize(
    ("code", "stdout", "last_value"),
    [
        ("print(12 * 34)", "408\n", ""),
        ("print(-3 + 4 * (5 - 1))", "13\n", ""),
        ("17 // 5", "", "3"),
        ("print(1 / 4)", "0.25\n", ""),
    ],
)
def test_arithmetic_fake_computes(code, stdout, last_value):
    result = asyncio.run(ArithmeticTool().execute(code))
    expected = (ToolStatus.OK, stdout, last_value)
    assert (result.status, result.stdout, result.last_value) == expected


@pytest.mark.parametrize(
    ("code", "error_type"),
    [("print(1 / 0)", "ZeroDivisionError"), ("print(", "SyntaxError"), ("import os", "ValueError"),
     ("print('a')", "ValueError"), ("open(1)", "ValueError"), ("2 ** 9", "ValueError")],
)  # fmt: skip
def test_arithmetic_fake_fails_as_data(code, error_type):
    result = asyncio.run(ArithmeticTool().execute(code))
    assert (result.status, result.error_type) == (ToolStatus.ERROR, error_type)
    assert result.stderr.startswith(error_type)


def test_scripted_fake_answers_from_its_table():
    tool = ScriptedTool({"a": ToolResult(status=ToolStatus.OK, stdout="A")})
    assert asyncio.run(tool.execute("a")).stdout == "A"
    assert asyncio.run(tool.execute("b")).error_type == "NameError"
    assert tool.calls == ["a", "b"]


def test_failing_fake_recovers_after_its_failures():
    tool = FailingTool(ArithmeticTool(), failures=2)
    for _ in range(2):
        with pytest.raises(ToolUnavailable):
            asyncio.run(tool.execute("1"))
    assert asyncio.run(tool.execute("1")).last_value == "1"


def test_slow_fake_changes_the_order_and_not_the_results():
    async def main() -> tuple[list[str], list[str]]:
        inner = ArithmeticTool()
        tool = SlowTool(inner, seed=1, max_latency_s=0.02)
        results = await asyncio.gather(*(tool.execute(str(i)) for i in range(10)))
        return [result.last_value for result in results], inner.calls

    values, order = asyncio.run(main())
    assert values == [str(i) for i in range(10)]
    assert order != values
    assert sorted(order) == sorted(values)
