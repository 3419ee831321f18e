"""experiments.new_run: flags to a gin file; what it prints and writes; nothing is written where something is wrong."""

import json

import pytest
from helpers.tiny_hf import write_gsm8k, write_model

from jaxtool.cli import entry, new_run
from jaxtool.train import dry_run
from jaxtool.train.run_files import load_run


def run(monkeypatch, *flags):
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr("sys.argv", ["new_run", *map(str, flags)])
    new_run.main()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("new_run")
    write_model(path / "model")
    write_gsm8k(path / "gsm8k.jsonl")
    return path


def flags_of(folder, out, **changed):
    flags = {
        "--model": folder / "model",
        "--data": folder / "gsm8k.jsonl",
        "--recipe": "text_rl",
        "--hardware": "cpu",
        "--out": out,
    } | changed
    return [part for pair in flags.items() for part in pair]


def test_the_file_is_accepted_by_a_dry_run_and_the_record_says_what_was_derived(
    folder, tmp_path, monkeypatch, capsys
):
    out, record = tmp_path / "my_run.gin", tmp_path / "out.json"
    more = ("--json", record, "--steps", 7, "--samples", 8, "--response_tokens", 40)
    run(monkeypatch, *flags_of(folder, out), *more)
    printed = capsys.readouterr().out
    found = json.loads(record.read_text())
    config = load_run([out])
    assert (config.schedule.steps, config.schedule.samples) == (7, 8)
    assert (found["layout"], found["renderer"]) == ("gsm8k", "boxed_text")
    assert found["response_tokens"] == config.rollout.max_response_tokens == 40
    assert found["row_tokens"] == config.engine.max_tokens
    assert found["row_tokens"] >= found["prompt_tokens"] + 40
    assert found["memory_gib"][-1][0] == "together"
    assert found["command"] == f"python -m experiments.train --gin_file {out} --workdir runs/my_run"
    assert "GiB of one device" in printed
    assert found["command"] in printed
    for name, text in found["facts"].items():
        assert f"{name:10}{text}" in printed
    checks = {check.name for check in dry_run.dry_run(config, seed=0)}
    assert {"memory", "learner state", "judge", "prompts", "question"} <= checks


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"--recipe": "grpo"}, "there is no recipe 'grpo'"),
        ({"--hardware": "abacus"}, "unknown hardware 'abacus'"),
        ({"--data": "nothing.jsonl"}, "there is no problem file nothing.jsonl"),
        ({"--recipe": "search_r1"}, "--recipe search_r1 needs a search server"),
    ],
    ids=["recipe", "hardware", "data", "search"],
)
def test_what_is_refused_writes_nothing(changed, said, folder, tmp_path, monkeypatch):
    out = tmp_path / "my_run.gin"
    with pytest.raises((ValueError, OSError), match=said) as caught:
        run(monkeypatch, *flags_of(folder, out, **changed))
    assert "\n" not in str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize(
    ("flag", "value"), [("--steps", "0"), ("--learning_rate", "2"), ("--samples", "few")]
)
def test_numbers_are_checked_by_the_parser(flag, value, folder, tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch, *flags_of(folder, tmp_path / "x.gin"), flag, value)
    assert f"argument {flag}" in capsys.readouterr().err
