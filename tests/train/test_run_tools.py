"""What a run refuses of its tools before weights are read, and the known answers of functions."""

import asyncio
import dataclasses

import pytest
from helpers.fakes import ArithmeticTool
from helpers.small_runs import LENGTH_TAGS, RENDERER, rl_config, two_tools

from jaxtool.model.sources import RandomInit
from jaxtool.rewards.call_cost import CallCost
from jaxtool.tools.function import Function
from jaxtool.tools.preflight import PreflightError
from jaxtool.tools.python_sandbox import PythonSandbox
from jaxtool.train.dry_run import dry_run
from jaxtool.train.rl_loop import train
from jaxtool.train.rollout_worker import load_text
from jaxtool.train.run_tools import open_menu, with_functions


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
