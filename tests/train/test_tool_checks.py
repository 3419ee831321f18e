"""Between rollouts and update: lost trajectories and wrong servers, on one host or several."""

import asyncio
import dataclasses
from types import SimpleNamespace

import pytest
from helpers.fakes import FailingTool, ScriptedTool
from helpers.ledgers import group_of, ledger

from jaxtool.core.types import FinishReason, ToolResult, ToolStatus, samples_of, with_samples
from jaxtool.parallel import hosts
from jaxtool.rollout.statistics import step_metrics
from jaxtool.tools.health import ToolHealth, ToolHealthConfig, TooManyFailures
from jaxtool.tools.known_answers import Asked, KnownAnswers, WrongAnswer, snippets_of
from jaxtool.tools.menu import Menu
from jaxtool.train.rollout_batch import RolloutBatch
from jaxtool.train.tool_checks import check_known_answers, check_tools

RIGHT = {
    snippet.code: ToolResult(
        status=ToolStatus.OK, stdout=snippet.stdout or "", last_value=snippet.last_value or ""
    )
    for number in range(4)
    for snippet in snippets_of(number)
}


@pytest.fixture
def opened():
    """A worker with one server, and rollouts that reach it."""
    with asyncio.Runner() as runner:

        def open_with(tool, name="renderer"):
            known = None if tool is None else KnownAnswers({"host:1": tool})
            renderer = SimpleNamespace(tool=name)
            worker = SimpleNamespace(
                collector=SimpleNamespace(renderer=renderer, tools=Menu()),
                known_answers=known,
                runner=runner,
            )
            return worker, SimpleNamespace(call_tools=lambda call: runner.run(call()))

        yield open_with


def batch(lost, trajectories, calls=True):
    groups = [
        group_of(
            ledger(
                "Qpptp" if calls else "Qp",
                problem=f"p{i}",
                calls=[ToolStatus.OK] * calls,
                reason=FinishReason.INFRASTRUCTURE if i < lost else FinishReason.ANSWER,
            )
        )
        for i in range(trajectories)
    ]
    chosen = with_samples(
        groups,
        [dataclasses.replace(s, is_chosen=not s.is_masked) for s in samples_of(groups)],
    )
    return RolloutBatch(groups=tuple(chosen), learnable_fraction=1.0, draws=1)


def test_right_answers_are_counted_and_the_batch_stays(opened):
    worker, rollouts = opened(ScriptedTool(RIGHT))
    given = batch(0, 4)
    found, metrics = check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, given, 1)
    assert found is given
    assert metrics == {"tools/known_answers_count": 2.0, "tools/unreachable_servers_count": 0.0}


def test_a_wrong_server_ends_the_step_before_its_update_with_program_expected_and_got(opened):
    worker, rollouts = opened(ScriptedTool({}))
    with pytest.raises(WrongAnswer) as error:
        check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(0, 4), 2)
    text = str(error.value)
    assert text.startswith("step 2, before its update: the sandbox at host:1 answers wrongly: ")
    assert "program 'print(123456793 * 987654319)': status: expected 'ok', got 'error'" in text
    assert "\n" not in text
    with pytest.raises(WrongAnswer, match="evaluate again"):
        check_known_answers(worker, 2)


def test_a_server_that_is_gone_is_counted_and_named(opened, capsys):
    worker, rollouts = opened(FailingTool(ScriptedTool(RIGHT), failures=2))
    _, metrics = check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(0, 4), 0)
    assert metrics["tools/unreachable_servers_count"] == 1.0
    warning = "warning: step 0: a known answer could not be asked: sandbox at fake: UNAVAILABLE"
    assert warning in capsys.readouterr().err


@pytest.mark.parametrize(("every", "asked"), [(1, [0, 1, 2, 3]), (2, [1, 3]), (0, [])])
def test_questions_come_every_so_many_steps(opened, every, asked):
    worker, rollouts = opened(ScriptedTool(RIGHT))
    health = ToolHealth(ToolHealthConfig(known_answers_every=every))
    steps = [s for s in range(4) if check_tools(health, worker, rollouts, batch(0, 2), s)[1]]
    assert steps == asked


def test_a_wrong_answer_of_another_host_ends_this_one_too(opened, monkeypatch):
    worker, rollouts = opened(ScriptedTool(RIGHT))
    other = Asked(programs=2, wrong="the sandbox at other:1 answers wrongly: x")
    monkeypatch.setattr(hosts, "exchange", lambda value: [value, other])
    with pytest.raises(WrongAnswer, match="other:1"):
        check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(0, 4), 0)


def test_counts_are_of_all_hosts(opened, monkeypatch):
    worker, rollouts = opened(ScriptedTool(RIGHT))
    other = Asked(programs=4, unreachable=("sandbox at b: gone",))
    monkeypatch.setattr(hosts, "exchange", lambda value: [value, other])
    _, metrics = check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(0, 4), 0)
    assert metrics == {"tools/known_answers_count": 6.0, "tools/unreachable_servers_count": 1.0}


def test_too_many_lost_end_the_run_or_empty_the_step(opened, capsys):
    worker, rollouts = opened(None)
    with pytest.raises(TooManyFailures, match="8 of the last 16"):
        check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(8, 16), 0)
    health = ToolHealth(ToolHealthConfig())
    check_tools(health, worker, rollouts, batch(0, 512), 0)
    few, _ = check_tools(health, worker, rollouts, batch(1, 16), 1)
    assert len(few.chosen) == 15
    found, metrics = check_tools(health, worker, rollouts, batch(9, 16), 1)
    assert (found.chosen, metrics) == ([], {})
    assert "nothing is learned from this step" in capsys.readouterr().err
    worker.collector.tools.last_trouble = "tool 'add': MCP server 'x': the connection is over"
    check_tools(health, worker, rollouts, batch(9, 16), 2)
    assert "; the last by tool 'add': MCP server 'x'" in capsys.readouterr().err
    with pytest.raises(TooManyFailures, match=r"allowed 5\.0%\): the last by tool 'add': MCP"):
        check_tools(ToolHealth(ToolHealthConfig()), worker, rollouts, batch(8, 16), 0)
    assert step_metrics(found.groups)["tools/infrastructure_failed_fraction"] == 9 / 16


def test_without_a_tool_nothing_is_asked(opened):
    worker, rollouts = opened(None, name=None)
    given = batch(0, 2, calls=False)
    health = ToolHealth(ToolHealthConfig())
    assert check_tools(health, worker, rollouts, given, 0) == (given, {})
