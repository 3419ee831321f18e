"""docs/tools.md does what it says: its function answers calls behind its renderer."""

import asyncio
import dataclasses
import pathlib
import re
import sys

from helpers.fakes import ArithmeticTool
from helpers.scripted_engine import run, stage

from jaxtool.core.calls import Call
from jaxtool.core.types import FinishReason, Problem, ToolStatus
from jaxtool.data.arithmetic import ArithmeticTask
from jaxtool.tools.function import Function
from jaxtool.tools.menu import Menu
from jaxtool.train.run_files import load_rl_run
from jaxtool.train.run_tools import load_renderer_of

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """The first block of a language; backticks inside it stand in quotes."""
    return re.search(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[1]


def program(code: str) -> list[str]:
    return [*f"<code>\n```python\n{code}\n```\n</code>"]


def test_the_function_of_the_page_answers_calls(tmp_path, monkeypatch):
    known = re.search(r"^calculate\.known_answers = .*$", PAGE, re.MULTILINE)[0]
    (tmp_path / "my_tools.py").write_text(f"{block('python')}\n\n{known}\n")
    (tmp_path / "my_renderer.toml").write_text(block("toml"))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tools", raising=False)
    script = [*program("print(12+7)"), *program("what"), *"<answer>19</answer>"]
    made = stage([[script]], tool=ArithmeticTool(), renderer=str(tmp_path / "my_renderer.toml"))
    source = Function(call="my_tools:calculate")
    made.collector.tools = menu = Menu([source.open()])
    made.collector.renderer = made.collector.renderer.with_tools(menu.specs)
    [t] = run(made)
    first, second = t.tool_calls
    assert (first.tool, first.arguments) == ("calculate", {"program": "print(12+7)"})
    assert first.result.stdout == "19"
    assert (second.result.status, second.result.error_type) == (ToolStatus.ERROR, "ValueError")
    assert "<interpreter>\n19\n</interpreter>" in t.response_text
    assert t.finish_reason is FinishReason.ANSWER
    asyncio.run(asks_known_answers(menu, source))


async def asks_known_answers(menu, source):
    [(arguments, expected)] = source.known_answers()
    sessions = menu.sessions(Problem(problem_id="p", question="", answer=""), "key")
    result = await sessions.call(Call(tool="calculate", arguments=arguments))
    assert result.stdout == expected == "19"


def test_the_function_of_the_page_works_out_every_question_of_the_quickstart():
    names: dict = {}
    exec(block("python"), names)
    for problem in ArithmeticTask().problems("test", 400, 0):
        assert str(names["calculate"](f"print({problem.question})")) == problem.answer


def test_the_run_files_of_the_page_build_runs_with_their_tools(tmp_path, monkeypatch):
    (tmp_path / "my_tools.py").write_text(block("python"))
    (tmp_path / "my_renderer.toml").write_text(block("toml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tools", raising=False)
    files = re.findall(r"^```gin\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    tools = []
    for number, text in enumerate(files):
        overlay = tmp_path / f"{number}.gin"
        overlay.write_text(text)
        config = load_rl_run(["gin_configs/runs/quickstart_grpo.gin", str(overlay)], [])
        tools.append([spec.name for spec in load_renderer_of(config).tools])
    assert tools[:2] == [["calculate"], ["search"]]


def test_the_fields_of_the_page_are_those_of_the_class():
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert {field.name for field in dataclasses.fields(Function)} <= named
