"""What a run refuses of its tools before weights are read, and the known answers of functions."""

import asyncio
import dataclasses
import sys

import pytest
from helpers.fakes import ArithmeticTool
from helpers.mcp_calls import bad, lines
from helpers.small_runs import LENGTH_TAGS, RENDERER, rl_config, two_tools

from jaxtool.model.sources import RandomInit
from jaxtool.renderers.renderer import load_renderer
from jaxtool.rewards.call_cost import CallCost
from jaxtool.tools.function import Function
from jaxtool.tools.mcp import Mcp
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.tools.search import Search
from jaxtool.train import run_files
from jaxtool.train.dry_run import dry_run
from jaxtool.train.rl_loop import train
from jaxtool.train.rollout_worker import load_text
from jaxtool.train.run_tools import (
    each_tool,
    load_renderer_of,
    open_menu,
    searched_at,
    tool_sources,
    with_functions,
)


def function(of, **options):
    return Function(call=f"helpers.user_tools:{of}", **options)


LENGTH = function("length")
TOOL_FREE = RENDERER[: RENDERER.index("[tool]")] + RENDERER[RENDERER.index("[answer]") :]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tools": (PythonSandbox(), LENGTH, LENGTH)}, "RlConfig.tools: two tools are called 'length': set the name of one"),
        ({"tools": (PythonSandbox(), LENGTH, function("convert"))}, "renderer 'two_tools' cannot call the tool 'convert', only python, length"),
        ({"tools": (LENGTH,)}, "calls 'python', and the run's tools are length: add it to RlConfig.tools"),
        ({"tools": None, "call_cost": CallCost()}, "calls 'length', and the run's tools are python"),
        ({"tools": (), "call_cost": CallCost()}, "calls 'python', and the run's tools are none"),
        ({"tools": (PythonSandbox(), function("untyped", name="length"))}, "parameter 'x' has no type: write x: str"),
        ({"tools": (PythonSandbox(), Function(call="no_module:f", name="length"))}, "tool 'no_module:f': no module 'no_module'"),
        ({"tools": (PythonSandbox(), function("convert", name="length"))}, "give 'length' its argument 'text', and the tool has no such argument"),
        ({"call_cost": CallCost(per_tool_token=(("serch", 0.5),))}, "CallCost.per_tool_token: there is no tool 'serch'; the run's tools are python, length"),
        ({"call_cost": CallCost(per_tool=(("sandbox", 0.5),))}, "CallCost.per_tool: there is no tool 'sandbox'; the run's tools are python, length"),
    ],
)  # fmt: skip
def test_a_run_and_a_dry_run_refuse_in_one_line_before_weights_are_read(
    tmp_path, monkeypatch, changes, message
):
    def load(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(RandomInit, "load", load)
    config = two_tools(tmp_path, **changes)
    for start in (
        lambda: train(config, workdir=tmp_path / "run", seed=0),
        lambda: list(dry_run(config)),
    ):
        with pytest.raises(ValueError, match=message) as error:
            start()
        assert "\n" not in str(error.value)


def test_tools_beside_a_renderer_without_any_are_refused(tmp_path):
    config = two_tools(tmp_path)
    (tmp_path / "two_tools.toml").write_text(TOOL_FREE)
    with pytest.raises(ValueError, match=r"RlConfig\.tools holds python, length, and the renderer"):
        load_text(config)
    none = dataclasses.replace(config, tools=None, call_cost=CallCost())
    assert load_text(none)[0].tools == ()


def test_without_tools_the_sandbox_is_the_only_one(tmp_path):
    renderer, _ = load_text(rl_config(tmp_path))
    assert [spec.name for spec in renderer.tools] == ["python"]
    priced = rl_config(tmp_path, call_cost=CallCost(per_tool=(("python", 0.5),)))
    load_text(priced)


def test_functions_of_the_command_line_join_the_tools(tmp_path):
    config = rl_config(tmp_path)
    (tmp_path / "one_character.toml").write_text(RENDERER + LENGTH_TAGS)
    joined = with_functions(config, ["helpers.user_tools:length"])
    assert joined.tools == (PythonSandbox(), LENGTH)
    assert [spec.name for spec in load_text(joined)[0].tools] == ["python", "length"]
    assert with_functions(config, []) is config


def test_servers_of_the_command_line_join_the_tools(tmp_path):
    config = rl_config(tmp_path)
    joined = with_functions(config, [], ["python 'my server.py'", "http://host:8000/mcp"])
    assert joined.tools == (
        PythonSandbox(),
        Mcp(command="python 'my server.py'"),
        Mcp(url="http://host:8000/mcp"),
    )


@pytest.mark.parametrize(
    ("server", "message"),
    [
        (Mcp(command="no-such-program"), "MCP server 'no-such-program': command not found"),
        (Mcp(url="http://127.0.0.1:9/mcp"), "MCP server 'http://127.0.0.1:9/mcp': ConnectError"),
        (Mcp(command="false"), "MCP server 'false'"),
        (Mcp(command="sh -c 'echo no such model >&2'"), "ended before it was ready; its error stream ends with: no such model"),
    ],
)  # fmt: skip
def test_a_server_that_is_not_there_is_one_line_before_weights_are_read(
    tmp_path, monkeypatch, server, message
):
    def load(*_):
        raise AssertionError("weights were read")

    monkeypatch.setattr(RandomInit, "load", load)
    config = two_tools(tmp_path, tools=(PythonSandbox(), LENGTH, server))
    for start in (
        lambda: train(config, workdir=tmp_path / "run", seed=0),
        lambda: list(dry_run(config)),
    ):
        with pytest.raises((ValueError, PreflightError)) as error:
            start()
        assert message in str(error.value)
        assert "\n" not in str(error.value)


def test_the_extra_that_is_missing_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.startswith("jaxtool.tools.mcp_")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("jaxtool.tools.mcp_calls", raising=False)
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp_types", None)
    with pytest.raises(
        ValueError, match=r"Mcp needs the package mcp: pip install 'jaxtool\[mcp\]'"
    ):
        Mcp(command="python missing_extra.py").sources()


def test_tools_of_a_server_are_priced_and_asked_what_is_known(tmp_path):
    """Each by its own name, as any other tool."""
    known = (("m_act", {"how": "fine"}, "fine"),)
    server = bad("fine", tmp_path / "log", prefix="m_", only=("act",), known_answers=known)
    names, _ = opened(PythonSandbox(), *each_tool([server]))
    assert names == ("python", "m_act")
    assert lines(tmp_path / "log").count("call fine") == 1
    wrong = dataclasses.replace(server, known_answers=(("m_act", {"how": "fine"}, "good"),))
    with pytest.raises(
        PreflightError, match=r"known answer of {'how': 'fine'}: expected 'good', got 'fine'"
    ):
        opened(*each_tool([wrong]))
    renderer = dataclasses.replace(load_renderer("hermes"))
    config = rl_config(tmp_path, renderer="hermes", tools=(server,))
    assert [source.spec.name for source in tool_sources(config, renderer)] == ["m_act"]
    load_renderer_of(dataclasses.replace(config, call_cost=CallCost(per_tool=(("m_act", 0.5),))))
    with pytest.raises(ValueError, match="no tool 'act'; the run's tools are m_act"):
        load_renderer_of(dataclasses.replace(config, call_cost=CallCost(per_tool=(("act", 0.5),))))
    with pytest.raises(ValueError, match=r"RlConfig\.tools: two tools are called 'm_act'"):
        load_renderer_of(dataclasses.replace(config, tools=(server, server)))


def test_tools_that_changed_between_check_and_start_refuse_the_run(tmp_path):
    with pytest.raises(
        PreflightError, match=r"tool 'act': ToolUnavailable: .* have changed during"
    ):
        opened(*each_tool([bad("changes", tmp_path / "log")]))


def test_a_run_file_names_servers(tmp_path):
    path = tmp_path / "run.gin"
    path.write_text(
        "from __gin__ import dynamic_registration\n"
        "include 'gin_configs/runs/quickstart_grpo.gin'\n"
        "from jaxtool.tools import mcp\n"
        "from jaxtool.train import rl_config\n"
        "rl_config.RlConfig.tools = (@files/mcp.Mcp(), @web/mcp.Mcp())\n"
        "files/mcp.Mcp.command = 'python my_server.py'\n"
        "files/mcp.Mcp.known_answers = (('add', {'a': 1, 'b': 2}, '3'),)\n"
        "web/mcp.Mcp.url = 'https://host/mcp'\n"
        "web/mcp.Mcp.headers = (('Authorization', 'Bearer ${TOKEN}'),)\n"
    )
    files, web = run_files.load_rl_run([str(path)], []).tools
    assert files == Mcp(
        command="python my_server.py", known_answers=(("add", {"a": 1, "b": 2}, "3"),)
    )
    assert web == Mcp(url="https://host/mcp", headers=(("Authorization", "Bearer ${TOKEN}"),))


def test_running_search_servers_stand_in_place_of_the_runs_own():
    sources = (PythonSandbox(), Search(corpus="wiki.jsonl", max_observation_tokens=24))
    assert searched_at(sources, ()) == sources
    python, search = searched_at(sources, ("127.0.0.1:8000",))
    assert python == PythonSandbox()
    assert search == Search(addresses=("127.0.0.1:8000",), max_observation_tokens=24)
    with pytest.raises(ValueError, match=r"^search servers at a:1: no tool of the run searches; "):
        searched_at((PythonSandbox(),), ("a:1",))
    with pytest.raises(ValueError, match="search address 'nowhere' must be host:port"):
        searched_at(sources, ("nowhere",))


def test_a_corpus_that_is_not_there_is_refused_in_one_line(tmp_path):
    path = str(tmp_path / "wiki.jsonl")
    with pytest.raises(FileNotFoundError, match=r"^Search\.corpus = '.*wiki\.jsonl': there is no"):
        Search(corpus=path).open()


def opened(*sources):
    with asyncio.Runner() as runner, open_menu(sources, ArithmeticTool(), runner) as menu:
        return menu.names, menu.take_figures()


def test_known_answers_are_asked_and_are_in_no_figure():
    names, figures = opened(PythonSandbox(), function("convert"))
    assert names == ("python", "convert")
    assert figures["convert"].latencies_s == []


@pytest.mark.parametrize(
    ("name", "answers", "message"),
    [
        ("wrongly_known", None, "tool 'wrongly_known': known answer of {'x': 1}: expected '2', got '1'"),
        ("convert", (({"value": "1"}, "1"),), "known answer of {'value': '1'}: the argument 'value' of convert must be of type number"),
        ("misbehave", (({"how": "raise"}, "1"),), r"expected '1', got 'ValueError: two\\nlines'"),
        ("misbehave", (({"how": "unavailable"}, "1"),), "ToolUnavailable: the index is down"),
    ],
)  # fmt: skip
def test_a_wrong_known_answer_refuses_the_run(monkeypatch, name, answers, message):
    source = function(name)
    if answers is not None:
        monkeypatch.setattr(f"helpers.user_tools.{name}.known_answers", answers, raising=False)
    with pytest.raises(PreflightError) as error:
        opened(source)
    assert message.replace(r"\\n", r"\n") in str(error.value)
    assert "\n" not in str(error.value)
