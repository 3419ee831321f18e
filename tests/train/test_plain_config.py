"""The configuration of weights without a gin file: of the run that left them, or the plainest that fits."""

import dataclasses
import json
import shutil

import pytest
from helpers.small_runs import cold_start_of, rl_config
from helpers.tiny_hf import CONTEXT, write_gsm8k, write_model

from jaxtool.config.loader import write_operative_config
from jaxtool.data.named_sets import evaluation_data
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import ExactMatch
from jaxtool.parallel.mesh import MeshConfig
from jaxtool.renderers.demonstrations import DemonstrationFile
from jaxtool.rewards.outcome import OutcomeReward
from jaxtool.rollout.collector import RolloutConfig
from jaxtool.rundir.checkpoints import SavedPolicy
from jaxtool.train.named_model import model_named, run_record
from jaxtool.train.plain_config import config_of_run, plain_config
from jaxtool.train.sources import HfTokenizerDirectory


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model with a chat template, one without, GSM8K's rows."""
    path = tmp_path_factory.mktemp("plain")
    write_model(path / "model")
    write_model(path / "base", has_template=False)
    write_gsm8k(path / "gsm8k.jsonl", rows=20)
    return path


@pytest.fixture(scope="module")
def task(folder):
    return evaluation_data([f"gsm8k={folder / 'gsm8k.jsonl'}"])


@pytest.fixture(scope="module")
def problems(task):
    return task.problems("test", None, 0)


def names(folder, name="model"):
    return [str(folder / name)]


def test_a_model_alone_is_asked_with_rows_that_hold_its_prompts(folder, task, problems):
    config = plain_config(names(folder), task, problems, answers=6)
    assert config.renderer == "retool"
    assert config.tokenizer == HfTokenizerDirectory(path=str(folder / "model"))
    assert isinstance(config.judge, Mathematics)
    assert config.task is task
    assert (config.engine.decode_rows, config.engine.most_decode_rows) == (0, 6)
    longest = config.engine.max_tokens - config.rollout.max_response_tokens
    assert 100 < longest < 500
    assert config.pack.row_tokens == config.engine.max_tokens


def test_tools_off_is_the_same_question_without_tools(folder, task, problems):
    assert plain_config(names(folder), task, problems, uses_tools=False).renderer == "retool_text"
    assert plain_config(names(folder, "base"), task, problems).renderer == "torl"
    base = plain_config(names(folder, "base"), task, problems, uses_tools=False)
    assert base.renderer == "torl_text"
    named = plain_config(names(folder), task, problems, renderer="react")
    assert named.renderer == "react"


def test_the_judge_is_the_one_that_reads_the_references(folder, tmp_path):
    rows = [{"question": f"Who {i}?", "answer": "the Chief of Protocol"} for i in range(9)]
    file = tmp_path / "words.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = evaluation_data([f"plain={file}"])
    config = plain_config(names(folder), task, task.problems("test", None, 0))
    assert isinstance(config.judge, ExactMatch)


def test_the_context_bounds_the_response(folder, task, problems):
    config = plain_config(names(folder), task, problems, max_response_tokens=77)
    assert config.rollout.max_response_tokens == 77
    with pytest.raises(ValueError, match=f"positions reach to {CONTEXT} tokens, and the longest"):
        plain_config(names(folder), task, problems, max_response_tokens=CONTEXT)


@pytest.fixture(scope="module")
def run_directory(tmp_path_factory, folder):
    """What a run leaves that trained the model: its configuration, and where its policies are."""
    path = tmp_path_factory.mktemp("runs")
    config = dataclasses.replace(
        rl_config(path),
        policy=model_named(folder / "model").source,
        tokenizer=HfTokenizerDirectory(path=str(folder / "model")),
        renderer="react",
        rollout=RolloutConfig(max_response_tokens=24, max_tool_calls=7),
        mesh=MeshConfig(tensor=4),
    )
    config = dataclasses.replace(config, reward=OutcomeReward())
    workdir = path / "mine"
    write_operative_config_in(workdir, config)
    return workdir


def write_operative_config_in(workdir, config):
    for name in ("policy", "policies/100"):
        (workdir / name).mkdir(parents=True)
        (workdir / name / "model_config.json").write_text(
            json.dumps(dataclasses.asdict(config.policy.model_config()))
        )
        (workdir / name / "params").mkdir()
    write_operative_config(workdir, config)


def test_a_runs_policy_is_asked_as_the_run_asked(run_directory, folder, task, problems):
    config = plain_config([*names(folder), str(run_directory)], task, problems)
    assert isinstance(config.policy, SavedPolicy)
    assert (config.renderer, config.rollout.max_tool_calls) == ("react", 7)
    assert config.rollout.max_response_tokens == 24
    assert config.mesh == MeshConfig(may_idle=True)  # the run's was another machine's
    assert config.task is task
    assert config.engine.max_tokens > 24


def test_a_steps_policy_has_the_runs_record_and_a_loose_one_is_refused(run_directory, tmp_path):
    record = run_directory / "operative_config.gin"
    for name in ("policy", "policies/100"):
        assert run_record(SavedPolicy(path=str(run_directory / name))) == record
    assert model_named(f"{run_directory}@100").context == CONTEXT
    shutil.copytree(run_directory / "policy", tmp_path / "loose")
    with pytest.raises(FileNotFoundError, match=r"left no operative_config.gin.*--gin_file"):
        model_named(tmp_path / "loose")


def test_a_cold_starts_policy_is_asked_in_its_renderer(folder, task, problems, tmp_path):
    run = dataclasses.replace(
        rl_config(tmp_path),
        policy=model_named(folder / "model").source,
        tokenizer=HfTokenizerDirectory(path=str(folder / "model")),
        renderer="retool_session",
    )
    config = cold_start_of(run, [2], DemonstrationFile(path="rows.jsonl"))
    write_operative_config_in(tmp_path / "cold", config)
    assert plain_config([tmp_path / "cold"], task, problems).renderer == "retool_session"


def test_a_gin_files_run_asks_other_weights(run_directory, folder, task, problems):
    run = model_named(run_directory).run
    config = config_of_run(run, folder / "model", task, problems, max_response_tokens=9)
    assert config.policy.path == str(folder / "model")
    assert (config.renderer, config.rollout.max_response_tokens) == ("react", 9)
