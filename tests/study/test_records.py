"""The study's evaluation writes every answer of a policy to a file."""

import json
import os
import pathlib

import jax
import numpy as np
import pytest
from helpers.small_runs import CountingTool, one_device_mesh

from jaxtool.config import loader
from jaxtool.core.types import Verdict
from jaxtool.judges.mathematics import MathematicsJudge
from jaxtool.model.config import ModelConfig
from jaxtool.model.transformer import init_params
from jaxtool.parallel.axis_rules import Sharding
from jaxtool.rundir.checkpoints import SavedPolicy, save_policy
from jaxtool.study import records, stage_process
from jaxtool.train import devices, rl_config, rollout_worker

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


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "make_mesh", one_device_mesh)
    monkeypatch.setattr(stage_process, "make_mesh", one_device_mesh)
    tool = CountingTool()

    def open_with_fake(stack, runner, config, source, sharding, seed, addresses):
        assert addresses == ("unix:/nowhere",)
        return rollout_worker.open_worker(stack, runner, config, source, sharding, seed, tool=tool)

    monkeypatch.setattr(records, "open_worker", open_with_fake)
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


def answers_of(job):
    records.evaluate_variant(job)
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


def test_the_begun_answer_is_judged_as_a_whole(job, monkeypatch):
    """`mental` answers begin in the prompt: prefix and text together are what is right or wrong."""
    seen = []

    def judge(self, cases):
        seen.append([case.response for case in cases])
        return [Verdict(score=1.0, is_correct=True, how="a test") for _ in cases]

    monkeypatch.setattr(MathematicsJudge, "judge", judge)
    records.evaluate_variant(job)
    assert all(text.startswith("<answer>\\boxed{") for text in seen[3])
    assert not any(text.startswith("<answer>\\boxed{<answer>") for text in seen[0])


def test_a_policy_that_is_not_trained_is_saved_as_it_is(job, tmp_path):
    """Out of the gin file's source, then out of the directory that the first left."""
    files = job["files"]
    first = {
        "kind": "take",
        "files": files,
        "params": [],
        "workdir": str(tmp_path / "base"),
        "seed": 3,
        "init_from": None,
    }
    second = first | {
        "workdir": str(tmp_path / "prompted"),
        "init_from": str(tmp_path / "base/policy"),
    }
    for number, described in enumerate((first, second)):
        file = tmp_path / f"{number}.json"
        file.write_text(json.dumps(described))
        stage_process.run(str(file))
    sharding = Sharding(one_device_mesh(None))
    source = loader.load(rl_config.RlConfig, files=files).policy
    model, wanted = source.load(sharding, 3)
    for name in ("base", "prompted"):
        found, params = SavedPolicy(path=str(tmp_path / name / "policy")).load(sharding, 0)
        assert found == model
        jax.tree.map(np.testing.assert_array_equal, params, wanted)
        assert (tmp_path / name / "operative_config.gin").is_file()
