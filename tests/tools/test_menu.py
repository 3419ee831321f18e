"""Tools by name, and when their sessions open and close."""

import asyncio

import pytest
from helpers.fakes import ArithmeticTool, FailingTool
from helpers.scripted_engine import ANSWER, CALL, EOS, run, stage

from jaxtool.core.calls import PYTHON, Call, ToolSpec
from jaxtool.core.types import FinishReason, Problem, ToolResult, ToolStatus, ToolUnavailable
from jaxtool.tools.code_tool import PYTHON_SPEC, CodeTool
from jaxtool.tools.menu import Menu


class Remembers:
    """A tool with state: a call is answered by how many calls its trajectory has made."""

    def __init__(self, *, name=PYTHON, fails=False, hangs_at_close=False):
        self.spec = ToolSpec(name=name, description="", parameters=PYTHON_SPEC.parameters)
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.fails, self.hangs_at_close = fails, hangs_at_close

    async def open(self, problem, key):
        self.opened.append(key)
        return _Memory(self, f"{problem.problem_id} {key}")

    async def close(self):
        return None


class _Memory:
    def __init__(self, tool, name):
        self.tool, self.name, self.calls = tool, name, 0

    async def call(self, arguments):
        await asyncio.sleep(0)
        if self.tool.fails:
            raise ToolUnavailable("down")
        self.calls += 1
        return ToolResult(status=ToolStatus.OK, stdout=f"{self.calls}\n")

    async def close(self):
        self.tool.closed.append(self.name)
        if self.tool.hangs_at_close:
            raise RuntimeError("cannot be closed")


def staged(scripts, tool, **options):
    made = stage(scripts, tool=ArithmeticTool(), **options)
    made.collector.tools = Menu([tool])
    return made


def test_a_session_opens_at_the_first_call_and_closes_with_its_trajectory():
    tool = Remembers()
    scripts = [[[*CALL, *CALL, *ANSWER]], [[*CALL, "a", EOS]], [["a", EOS]]]
    first, second, third = run(staged(scripts, tool))
    assert [call.result.stdout for call in first.tool_calls] == ["1\n", "2\n"]
    assert [call.result.stdout for call in second.tool_calls] == ["1\n"]
    assert third.num_tool_calls == 0
    assert sorted(tool.opened) == ["0/test/0/p0/0", "0/test/0/p1/0"]
    assert sorted(tool.closed) == ["p0 0/test/0/p0/0", "p1 0/test/0/p1/0"]


def test_a_session_closes_where_the_trajectory_is_masked_and_where_it_cannot_be_closed():
    tool = Remembers(fails=True, hangs_at_close=True)
    [t] = run(staged([[[*CALL, *ANSWER]]], tool))
    assert t.finish_reason is FinishReason.INFRASTRUCTURE
    assert tool.closed == ["p0 0/test/0/p0/0"]


def test_an_abandoned_collection_closes_its_sessions():
    tool = Remembers()
    made = staged([[[*CALL, *["a"] * 300, EOS]]], tool, fetch_s=0.02)

    async def interrupted():
        task = asyncio.create_task(made.collect())
        while not tool.opened:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(interrupted())
    assert tool.closed == ["p0 0/test/0/p0/0"]


def test_stateless_tools_share_one_session():
    tool = CodeTool(FailingTool(ArithmeticTool(), failures=0))

    async def sessions():
        return [await tool.open(problem, "") for problem in (None, None)]

    one, other = asyncio.run(sessions())
    assert one is other


def test_two_tools_of_one_name_are_refused():
    with pytest.raises(ValueError, match="two tools are called 'python': set the name of one"):
        Menu([Remembers(), CodeTool(ArithmeticTool())])


def test_a_name_that_no_metric_can_have_is_refused():
    with pytest.raises(ValueError, match="a tool is called 'my tool': a name has letters, digits"):
        Menu([Remembers(name="my tool")])
    assert Menu([Remembers(name=n) for n in ("_own", "a.b", "a-b", "7z")]).names[0] == "_own"


def test_a_call_goes_to_the_tool_that_it_names():
    menu = Menu([CodeTool(ArithmeticTool()), Remembers(name="count")])

    async def both():
        sessions = menu.sessions(Problem(problem_id="p", question="", answer=""), "key")
        return [
            await sessions.call(Call.python("6*7")),
            await sessions.call(Call(tool="count", arguments={"code": ""})),
        ]

    first, second = asyncio.run(both())
    assert (first.last_value, second.stdout) == ("42", "1\n")
