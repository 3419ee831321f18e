"""The study's evaluation writes every answer of a policy to a file."""

import dataclasses
import json
import os
import pathlib

import jax
import numpy as np
import pytest
from helpers.small_runs import CountingTool, one_device_mesh

from jaxtool.config import loader
from jaxtool.core.types import ToolUnavailable, Verdict
from jaxtool.judges.mathematics import MathematicsJudge
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import init_params
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.rundir.run_record import read_record
from jaxtool.study import records, stage_process
from jaxtool.study.figures import EvalRecord
from jaxtool.train import rl_config

SMALL = """# target: jaxtool.train.rl_config.RlConfig
from __gin__ import dynamic_registration
from jaxtool.decode import engine
from jaxtool.model import config
from jaxtool.rollout import collector
from jaxtool.train import rl_config
include "gin_configs/study/arithmetic_retool_grpo.gin"
config.ModelConfig.d_model = 16
config.ModelConfig.d_ff = 16
config.ModelConfig.num_layers = 1
config.ModelConfig.num_heads = 1
config.ModelConfig.num_kv_heads = 1
config.ModelConfig.head_dim = 16
collector.RolloutConfig.max_response_tokens = 8
engine.EngineConfig.decode_rows = 8
engine.EngineConfig.prefill_rows = 4
"""

ALL_MAY_BE_LOST = "Schedule.eval_max_lost_fraction = 0.99"


@pytest.fixture
def job(tmp_path):
    file = tmp_path / "small.gin"
    file.write_text(SMALL)
    model: ModelConfig = loader.load(rl_config.RlConfig, files=[file]).policy.config
    save_policy(tmp_path / "policy", init_params(model, jax.random.key(0)), model)
    return {
        "files": [str(file)],
        "asked": {
            "params": ["Schedule.eval_problems = 6"],
            "renderer": "arithmetic_lookup",
            "mental_renderer": "arithmetic_mental",
            "mental_problems": 5,
            "seed": 0,
            "split": "validation",
            "problems": 7,
        },
        "policy": str(tmp_path / "policy"),
        "output": str(tmp_path / "answers" / "tool.json"),
        "sandbox": "unix:/nowhere",
    }


def evaluate(job):
    records.evaluate_variant(job, mesh=one_device_mesh(), tool=CountingTool())


def answers_of(job, tool=None):
    records.evaluate_variant(job, mesh=one_device_mesh(), tool=tool or CountingTool())
    return records.read_answers(pathlib.Path(job["output"]))


def test_every_question_gets_its_answer(job, tmp_path):
    parts = answers_of(job)
    assert {part: len(answers) for part, answers in parts.items()} == {
        "greedy": 7,
        "sampled": 7,
        "validation": 6,
        "mental": 5,
    }
    assert all(answer.calls == 0 for answer in parts["mental"])
    assert all(a.calls_by_tool == {"python": a.calls} for rows in parts.values() for a in rows)
    assert [a.question for a in parts["greedy"]] == [a.question for a in parts["sampled"]]
    assert answers_of(job | {"output": str(tmp_path / "again.json")}) == parts
    asked = job["asked"] | {"renderer": "arithmetic_text"}
    text = answers_of(job | {"asked": asked, "output": str(tmp_path / "text.json")})
    assert [a.question for a in text["greedy"]] == [a.question for a in parts["greedy"]]


def test_answers_are_those_of_a_policy_and_to_questions(job):
    """Not of a policy that was trained again since, nor to other questions."""
    output, policy = pathlib.Path(job["output"]), pathlib.Path(job["policy"])
    asked = job["asked"]
    assert not records.are_answers_of(output, asked, policy)
    answers_of(job)
    assert records.are_answers_of(output, asked, policy)
    assert not records.are_answers_of(output, asked | {"problems": 8}, policy)
    later = output.stat().st_mtime + 1
    os.utime(policy / "model_config.json", (later, later))
    assert not records.are_answers_of(output, asked, policy)


def test_lost_answers_are_asked_again_and_written_as_lost_up_to_a_share(job):
    """The first asking loses all that call, the second what calls again: every answer of the seven counts."""
    tool = CountingTool(fails_at=1, error=ToolUnavailable("down"))
    whole = answers_of(job)
    called = [a.question for a in whole["sampled"] if a.calls]
    asked = job["asked"] | {"params": [*job["asked"]["params"], ALL_MAY_BE_LOST]}
    found = answers_of(job | {"asked": asked}, tool)
    assert [len(rows) for rows in found.values()] == [7, 7, 6, 5]
    assert [a.question for a in found["sampled"] if a.is_lost] == called
    assert not any(a.is_correct for a in found["sampled"] if a.is_lost)


def test_too_many_lost_answers_write_no_file(job, tmp_path):
    def part(lost):
        row = EvalRecord(question="q", level="easy", calls=0, is_correct=False, tokens=1)
        return [dataclasses.replace(row, is_lost=i < lost) for i in range(200)]

    records.check_few_are_lost({"greedy": part(2), "mental": part(0)}, 0.01)
    with pytest.raises(ValueError, match=r"3 of 200 sampled answers were lost.* allows 1\.0%"):
        records.check_few_are_lost({"greedy": part(2), "sampled": part(3)}, 0.01)


def test_files_that_left_lost_answers_out_are_asked_again(job):
    """Files of before do not say what they lost; they are short of it."""
    output, policy = pathlib.Path(job["output"]), pathlib.Path(job["policy"])
    asked = job["asked"]
    row = {"question": "q", "level": "easy", "calls": 0, "is_correct": True, "tokens": 1}
    parts = {"greedy": [row] * 7, "sampled": [row] * 7, "validation": [row], "mental": [row] * 5}
    output.parent.mkdir()
    output.write_text(json.dumps({"asked": asked, "answers": parts}))
    assert records.are_answers_of(output, asked, policy)
    assert not records.read_answers(output)["greedy"][0].is_lost
    parts["sampled"] = [row] * 6
    output.write_text(json.dumps({"asked": asked, "answers": parts}))
    assert not records.are_answers_of(output, asked, policy)


def test_the_begun_answer_is_judged_as_a_whole(job, monkeypatch, tmp_path):
    """`mental` answers begin in the prompt: prefix and text together are what is right or wrong."""
    seen = []

    def judge(self, cases):
        seen.append([case.response for case in cases])
        return [Verdict.plain(True, "a test") for _ in cases]

    monkeypatch.setattr(MathematicsJudge, "judge", judge)
    evaluate(job)
    assert all(text.startswith("<answer>\\boxed{") for text in seen[3])
    assert not any(text.startswith("<answer>\\boxed{<answer>") for text in seen[0])


def test_a_policy_that_is_not_trained_is_saved_as_it_is(job, tmp_path):
    """Out of the gin file's source, then out of the directory that the first left."""
    files = job["files"]
    first = {
        "kind": "take",
        "files": files,
        "params": [],
        "workdir": str(tmp_path / "prompted_text"),
        "seed": 3,
        "init_from": None,
        "command": ["python", "-m", "experiments.reproduce"],
    }
    second = first | {
        "workdir": str(tmp_path / "prompted"),
        "init_from": str(tmp_path / "prompted_text/policy"),
    }
    for number, described in enumerate((first, second)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(described))
        stage_process.run(str(file), one_device_mesh())
    sharding = Sharding(one_device_mesh())
    source = loader.load(rl_config.RlConfig, files=files).policy
    model, wanted = source.load(sharding, 3)
    for name in ("prompted_text", "prompted"):
        found, params = SavedPolicy(path=str(tmp_path / name / "policy")).load(sharding, 0)
        assert found == model
        jax.tree.map(np.testing.assert_array_equal, params, wanted)
        assert (tmp_path / name / "operative_config.gin").is_file()
        record = read_record(tmp_path / name)
        assert record is not None
        assert record.starts[-1].command == "python -m experiments.reproduce"
