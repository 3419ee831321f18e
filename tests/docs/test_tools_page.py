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
from jaxtool.tools.interpreter import RESTARTED, ROLLED_BACK
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.menu import Menu
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.run_files import load_rl_run
from jaxtool.train.run_tools import load_renderer_of

PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "tools.md").read_text(encoding="utf-8")


def block(language: str, number: int = 0) -> str:
    """A block of a language; backticks inside it stand in quotes."""
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)[number]


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


def test_the_server_of_the_page_answers_calls(tmp_path):
    (tmp_path / "my_tools.py").write_text(block("python"))
    (tmp_path / "my_server.py").write_text(block("python", 1))
    (tmp_path / "my_renderer.toml").write_text(block("toml"))
    made = stage(
        [[[*program("print(12+7)"), *"<answer>19</answer>"]]],
        tool=ArithmeticTool(),
        renderer=str(tmp_path / "my_renderer.toml"),
    )
    server = Mcp(command=(sys.executable, "my_server.py"), cwd=str(tmp_path))
    [source] = server.sources()
    made.collector.tools = menu = Menu([source.open()])
    made.collector.renderer = made.collector.renderer.with_tools(menu.specs)
    [t] = run(made)
    asyncio.run(menu.close())
    assert [(call.tool, call.result.stdout) for call in t.tool_calls] == [("calculate", "19")]
    assert "<interpreter>\n19\n</interpreter>" in t.response_text


def test_the_run_file_of_the_page_names_servers(tmp_path):
    [lines] = re.findall(
        r"^```\n(from jaxtool.tools import mcp\n.*?)^```$", PAGE, re.DOTALL | re.MULTILINE
    )
    path = tmp_path / "run.gin"
    path.write_text(
        "from __gin__ import dynamic_registration\n"
        "from jaxtool.rewards import call_cost\n"
        "from jaxtool.train import rl_config\n"
        f"include 'gin_configs/runs/quickstart_grpo.gin'\n{lines}"
        "rl_config.RlConfig.call_cost = @call_cost.CallCost()\n"
    )
    time, web = load_rl_run([str(path)], []).tools
    assert (time.endpoint.command[:3], time.only) == (
        ("python", "-m", "mcp_server_time"),
        ("convert_time",),
    )
    assert web.headers == (("Authorization", "Bearer ${WEB_TOKEN}"),)


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


def test_the_fields_of_the_page_are_those_of_the_classes():
    rows = re.findall(r"^\| (`.*?`) \|", PAGE, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    for tool in (Function, Mcp):
        assert {field.name for field in dataclasses.fields(tool)} <= named


def test_the_section_on_state_is_that_of_the_class():
    section = re.search(r"^## State\n(.*?)^## ", PAGE, re.DOTALL | re.MULTILINE)[1]
    rows = dict(re.findall(r"^\| `(\w+)` \|.*\| (.*?) \|$", section, re.MULTILINE))
    fields = {field.name: field.default for field in dataclasses.fields(PythonSandbox)}
    assert rows.keys() == fields.keys() - {"description", "max_observation_tokens"}
    for name, shown in rows.items():
        default = fields[name]
        said = f"{default:g}" if isinstance(default, float) else str(default)
        assert shown.strip('`"') == said, name
    words = " ".join(section.split())
    assert ROLLED_BACK in words
    assert RESTARTED in words
