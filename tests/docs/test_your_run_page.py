"""docs/your_run.md: its five commands, read out of the page, run one after the other as a newcomer would type them.

In this process, so that jax starts once, with a tiny random model and rows in GSM8K's shape.
"""

import importlib
import importlib.util
import json

import pytest
from helpers.tiny_hf import write_gsm8k, write_model

from docs.commands import REPOSITORY_ROOT, commands
from jaxtool.cli import entry

PAGE = (REPOSITORY_ROOT / "docs" / "your_run.md").read_text(encoding="utf-8")
MODULES = (
    "experiments.new_run",
    "experiments.train",
    "experiments.evaluate",
    "experiments.compare",
    "jaxtool.report",
)
# A newcomer's machine has a device and time; here eight devices share two cores.
SHORTER = {"experiments.new_run": ("--response_tokens", "48")}


def first_five():
    return [command for command in commands(PAGE, "your_run.md") if command.is_whole][:5]


def call(monkeypatch, module, *flags):
    """Runs a command's main in this process."""
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr("sys.argv", [module, *map(str, flags)])
    is_package = importlib.util.find_spec(module).submodule_search_locations is not None
    importlib.import_module(f"{module}.__main__" if is_package else module).main()


def test_the_page_begins_with_five_commands():
    assert tuple(command.module for command in first_five()) == MODULES


@pytest.mark.nightly
@pytest.mark.slow
def test_the_five_commands_make_a_table(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "my_model")
    write_gsm8k(tmp_path / "gsm8k_train.jsonl")
    new_run, train, evaluate, compare, report = first_five()
    # 1) A gin file, which nobody wrote.
    call(monkeypatch, new_run.module, *new_run.arguments, *SHORTER[new_run.module])
    assert "as gsm8k: " in capsys.readouterr().out
    assert (tmp_path / "my_run.gin").is_file()
    # 2) Three steps.
    call(monkeypatch, train.module, *train.arguments, "--json", "train.json")
    last = json.loads((tmp_path / "train.json").read_text())["last"]
    assert last["step"] == 2
    assert last["tokens/reprefilled_total"] == 0
    assert last["mismatch/max_abs_logprob_nats"] < 1e-4
    # 3) Both policies on the same questions, four samples each.
    call(monkeypatch, evaluate.module, *evaluate.arguments, "--json", "eval.json")
    found = json.loads((tmp_path / "eval.json").read_text())
    assert set(found["variants"]) == {"base", "trained"}
    assert found["variants"]["trained"]["sampled"]["answers"] == 4 * 8
    # 5) The report.
    call(monkeypatch, report.module, *report.arguments)
    assert "trajectories" in (tmp_path / "runs" / "mine" / "report.html").read_text()
    # 4) Their differences. Last, so that a checkout without the command has the other four tested.
    if importlib.util.find_spec(compare.module) is None:
        pytest.skip("experiments.compare is not in this checkout")
    capsys.readouterr()
    call(monkeypatch, compare.module, *compare.arguments)
    assert "base" in capsys.readouterr().out
