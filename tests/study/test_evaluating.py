"""An evaluation in a work directory: resumed, refused, with every condition, with answers that are lost."""

import asyncio
import dataclasses
import errno
import json

import pytest
from helpers.small_runs import RENDERER, CountingTool, one_device_mesh, rl_config

from jaxtool.core.types import ToolUnavailable
from jaxtool.decode.sampling import Sampling
from jaxtool.model.sources import RandomInit
from jaxtool.rollout.judged_answers import of_records
from jaxtool.rollout.statistics import figures_of
from jaxtool.rundir import answer_files
from jaxtool.rundir.answer_files import Condition, chunk_path, read_answers, read_settings
from jaxtool.rundir.answer_records import read_records
from jaxtool.rundir.run_listing import read_run
from jaxtool.study import evaluating, evaluation_plan
from jaxtool.study.comparison_tables import check_rests_on_enough
from jaxtool.study.evaluation_plan import Asked, plan_evaluation
from jaxtool.study.record_tables import results_of

ASKED = Asked(data="", problems=5, samples=8)
TOOL_FREE = """
[[messages]]
role = "user"
content = "{question}!"

[format]
uses_chat_template = false
response_prefix = ""

[answer]
close = "!!"
style = "boxed"
"""


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Chunks of two questions; two policies, a and b, whose weights are random."""
    monkeypatch.setattr(evaluation_plan, "_CHUNK_ANSWERS", 16)
    made = rl_config(tmp_path)
    (tmp_path / "one_character.toml").write_text(
        RENDERER.replace('prefix = ""', 'prefix = ""\ntool_free = "free.toml"')
    )
    (tmp_path / "free.toml").write_text(TOOL_FREE)
    monkeypatch.setattr(
        evaluation_plan, "weights_named", lambda name, like: RandomInit(config=like.config)
    )
    return made


def plan_of(config, asked=ASKED, policies=("a", "b")):
    return plan_evaluation(config, {name: f"runs/{name}" for name in policies}, asked)


def evaluate(plan, workdir, tool=None):
    evaluating.run_evaluation(plan, workdir, tool=tool or CountingTool(), mesh=one_device_mesh())
    return [dataclasses.replace(record, spans=()) for record in read_answers(workdir)]


def test_a_stopped_evaluation_goes_on_and_ends_with_the_same_records(config, tmp_path, monkeypatch):
    plan = plan_of(config)
    whole = evaluate(plan, tmp_path / "whole")
    assert len(whole) == 2 * (5 + 5 * 8)
    assert any(record.num_calls for record in whole)
    write, written = answer_files.write_chunk, []

    def full(workdir, policy, condition, chunk, records):
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        written.append((policy, condition.name, chunk))
        write(workdir, policy, condition, chunk, records)

    monkeypatch.setattr(answer_files, "write_chunk", full)
    with pytest.raises(OSError, match="No space left"):
        evaluate(plan, tmp_path / "stopped")
    assert read_run(tmp_path / "stopped").state == "failed"
    with pytest.raises(ValueError, match="is not finished"):
        read_answers(tmp_path / "stopped")
    first = written.copy()
    files = {path: path.read_bytes() for path in (tmp_path / "stopped").glob("answers/*/*/*")}
    assert len(files) == 4

    def rest(workdir, policy, condition, chunk, records):
        written.append((policy, condition.name, chunk))
        write(workdir, policy, condition, chunk, records)

    monkeypatch.setattr(answer_files, "write_chunk", rest)
    assert evaluate(plan, tmp_path / "stopped") == whole
    assert len(written) == len(set(written)) == 12
    assert written[:4] == first
    assert all(path.read_bytes() == content for path, content in files.items())
    found = read_run(tmp_path / "stopped")
    assert (found.state, found.step, found.steps) == ("finished", 12, 12)


def test_each_condition_has_its_prompt_and_its_budget(config, tmp_path):
    asked = dataclasses.replace(
        ASKED, tools=("on", "off"), calls=(0, 2), samplings=("sampled",), problems=3
    )
    records = evaluate(plan_of(config, asked, ("a",)), tmp_path / "eval")
    settings = read_settings(tmp_path / "eval")
    assert [one.name for one in settings.conditions] == [
        *("sampled_calls_0", "sampled_calls_2", "sampled_no_tools"),
    ]
    by_condition = {
        (has_tools, budget): [
            r for r in records if (r.has_tools, r.max_tool_calls) == (has_tools, budget)
        ]
        for has_tools, budget in ((True, 0), (True, 2), (False, 0))
    }
    assert all(len(part) == 24 for part in by_condition.values())
    most = {key: max(r.num_calls for r in part) for key, part in by_condition.items()}
    assert most[True, 0] == most[False, 0] == 0
    assert most[True, 2] >= 1
    # Prompts "0+1=" and "0+1!" have the same length, and other answers follow.
    assert [r.response for r in by_condition[False, 0]] != [
        r.response for r in by_condition[True, 0]
    ]
    ways = results_of(tmp_path / "eval").comparison.variants["a"]
    assert list(ways) == ["sampled_calls_0", "sampled_calls_2", "sampled_no_tools"]


def test_figures_and_json_are_those_of_the_records(config, tmp_path):
    records = evaluate(plan_of(config), tmp_path / "eval")
    results = results_of(tmp_path / "eval")
    found = json.loads(json.dumps(results.as_json()))
    sampled = [r for r in records if (r.policy, r.sampling) == ("b", "sampled")]
    part = found["variants"]["b"]["sampled"]
    assert part["accuracy"] == sum(r.is_correct for r in sampled) / 40
    assert part["tool_calls"] == sum(r.num_calls for r in sampled) / 40
    assert part["by_tool"]["python"]["tool_calls"] == part["tool_calls"]
    assert part["tool_productivity"] == figures_of(of_records(sampled)).tool_productivity
    assert found["paired"]["b"]["greedy"]["questions"] == 5
    assert found["figures"]["b"]["sampled"]["tool_calls"]["value"] == part["tool_calls"]
    assert set(found["figures"]["b"]["sampled"]["pass_at"]) == {"1", "2", "4", "8"}
    assert set(found["figures"]["b"]["greedy"]["pass_at"]) == {"1"}
    assert found["settings"]["samples"] == 8
    # The page holds every answer: nobody else knows which of them somebody looks for.
    shown = [record for file in results.files for record in read_records(file.path)]
    assert [dataclasses.replace(record, spans=()) for record in shown] == [
        dataclasses.replace(record, spans=()) for record in records
    ]


def test_another_evaluation_in_the_directory_is_refused_with_what_differs(config, tmp_path):
    evaluate(plan_of(config, policies=("a",)), tmp_path / "eval")
    for changed, said in (
        ({"samples": 3}, r"EvaluationIdentity.samples: 8 -> 3"),
        ({"seed": 1}, r"--seed: 0 -> 1"),
        ({"temperature": 0.5}, r"Sampling.temperature: 1.0 -> 0.5"),
    ):
        other = plan_of(config, dataclasses.replace(ASKED, **changed), ("a",))
        with pytest.raises(ValueError, match=said):
            evaluate(other, tmp_path / "eval")
    more = plan_of(config)
    with pytest.raises(ValueError, match=r"EvaluationIdentity.policies: .*runs/a.*runs/b"):
        evaluate(more, tmp_path / "eval")


def test_a_finished_evaluation_opens_nothing(config, tmp_path, monkeypatch):
    plan = plan_of(config, policies=("a",))
    records = evaluate(plan, tmp_path / "eval")
    monkeypatch.setattr(evaluating, "open_worker", None)
    assert evaluate(plan, tmp_path / "eval") == records


class DownFor:
    """A tool that cannot be reached for a while."""

    def __init__(self, calls: int):
        self._left, self._inner = calls, CountingTool()

    async def execute(self, code: str):
        self._left -= 1
        if self._left >= 0:
            raise ToolUnavailable("nobody there")
        return await self._inner.execute(code)

    async def close(self) -> None:
        await asyncio.sleep(0)


def test_lost_answers_are_asked_again_counted_and_found_by_the_next_start(config, tmp_path):
    asked = dataclasses.replace(ASKED, samplings=("sampled",))
    plan = plan_of(config, asked, ("a",))
    whole = evaluate(plan, tmp_path / "whole")
    # One failure: the second try finds the answer.
    assert evaluate(plan, tmp_path / "once", DownFor(1)) == whole
    # Never there: every answer that calls is lost, and figures are refused.
    lost = evaluate(plan, tmp_path / "down", DownFor(1000))
    calling = [record.num_calls > 0 or record.is_lost for record in whole]
    assert [record.is_lost for record in lost] == calling
    assert any(calling)
    with pytest.raises(ValueError, match=r"no figures, too many answers were lost.*a, sampled"):
        check_rests_on_enough(results_of(tmp_path / "down").comparison)
    # The same command asks for those alone.
    assert evaluate(plan, tmp_path / "down") == whole


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"samples": 4, "ks": (8,)}, r"--k 8: .* which are 4; say --samples 8"),
        ({"samples": 0}, r"--samples 0 must be from 1"),
        ({"samples": 4, "samplings": ("greedy",)}, r"a greedy policy always answers the same"),
        ({"tools": ("off",), "calls": (1,)}, r"--calls beside --tools off"),
    ],
    ids=["k", "none", "greedy", "calls"],
)
def test_what_contradicts_itself_is_refused_at_once(fields, said):
    with pytest.raises(ValueError, match=said):
        Asked(data="", problems=5, **fields)


def test_what_cannot_be_asked_is_refused_before_weights_are_read(config, tmp_path):
    with pytest.raises(ValueError, match=r"--temperature 0 must be above 0"):
        plan_of(config, dataclasses.replace(ASKED, temperature=0.0))
    with pytest.raises(ValueError, match=r"top_p"):
        plan_of(config, dataclasses.replace(ASKED, top_p=1.5))
    with pytest.raises(ValueError, match=r"a policy cannot be called 'a/b'"):
        plan_of(config, policies=("a/b",))
    (tmp_path / "one_character.toml").write_text(RENDERER)
    with pytest.raises(ValueError, match=r"names no prompt without tools: add tool_free"):
        plan_of(config, dataclasses.replace(ASKED, tools=("off",)))
    (tmp_path / "one_character.toml").write_text(TOOL_FREE)
    with pytest.raises(ValueError, match=r"--tools on: .* calls no tool"):
        plan_of(config, dataclasses.replace(ASKED, tools=("on",)))
    assert plan_of(config).settings.conditions[0].has_tools is False


def test_temperature_and_top_p_are_those_of_sampled_answers(config):
    plan = plan_of(config, dataclasses.replace(ASKED, temperature=0.6, top_p=0.7))
    greedy, sampled = plan.settings.conditions
    assert plan.sampling(sampled) == Sampling(temperature=0.6, top_p=0.7)
    assert plan.sampling(greedy) == Sampling(temperature=0.0)


def test_the_paths_of_an_evaluation(config, tmp_path):
    evaluate(plan_of(config, policies=("a",)), tmp_path / "eval")
    condition = Condition(sampling="sampled", has_tools=True, max_tool_calls=2)
    assert chunk_path(tmp_path / "eval", "a", condition, 2).is_file()
    record = json.loads((tmp_path / "eval" / "run.json").read_text())
    [start] = record["starts"]
    assert start["status"] == "finished"
    assert {"command", "commit", "versions", "devices"} <= set(start)
