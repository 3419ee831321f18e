"""`experiments.runs`: what it prints is what the files of runs say."""

import dataclasses
import json

import pytest

from jaxtool.cli import entry, runs
from jaxtool.core.locks import hold
from jaxtool.rundir.run_record import LOCK, RunRecord
from jaxtool.rundir.run_start import Identity, Launch, open_start


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 4
    rate: float = 0.5


def make_run(workdir, rows, *, config=Config(), ends=True, fails=None):
    identity = Identity(config=config, seed=1, init_from=None, steps=config.steps)
    launch = Launch(
        files=("gin_configs/runs/otc.gin",),
        origin=lambda part, name: "otc.gin:3" if name == "rate" else "",
        command=("python", "-m", "experiments.train"),
    )
    workdir.mkdir(parents=True)
    with open_start(workdir, identity, launch=launch) as start:
        if fails == "checks":
            raise ValueError("no policy there")
        start.begin(0)
        text = "".join(
            json.dumps({"step": step, "time_s": 1, "reward/mean": step / 8}) + "\n"
            for step in range(rows)
        )
        (workdir / "metrics.jsonl").write_text(text + '{"step": 9, "rew')
        if fails is not None:
            raise OSError(fails)
        if ends:
            (workdir / "checkpoints" / str(rows)).mkdir(parents=True)
            (workdir / "policy").mkdir()
            (workdir / "policy" / "model_config.json").write_text("{}")
            start.finish()


@pytest.fixture
def folder(tmp_path):
    make_run(tmp_path / "done", 4)
    make_run(tmp_path / "study" / "seed0" / "killed", 2, ends=False)
    for name, fails in (("broken", "a full disk"), ("refused", "checks")):
        with pytest.raises((OSError, ValueError)):
            make_run(tmp_path / name, 1, fails=fails)
    return tmp_path


def call(monkeypatch, tmp_path, *flags):
    """The JSON of a command."""
    monkeypatch.setattr(entry, "prepare", lambda: None)
    record = tmp_path / "said.json"
    monkeypatch.setattr("sys.argv", ["runs", *map(str, flags), "--json", str(record)])
    entry.run(runs.main)
    return json.loads(record.read_text())


def test_list_has_a_line_for_each_run_with_its_state(folder, monkeypatch, capsys):
    with hold(folder / "done" / LOCK):
        running = call(monkeypatch, folder, "list", folder)["runs"]
    assert {one["state"] for one in running if one["path"].endswith("done")} == {"running"}
    capsys.readouterr()
    found = call(monkeypatch, folder, "list", folder)["runs"]
    named = {one["path"].removeprefix(f"{folder}/"): one for one in found}
    assert {name: (one["state"], one["step"], one["steps"]) for name, one in named.items()} == {
        "done": ("finished", 4, 4),
        "study/seed0/killed": ("stopped", 2, 4),
        "broken": ("failed", 1, 4),
        "refused": ("failed checks", 0, 4),
    }
    assert named["done"]["metrics"] == {"reward": 0.375}
    assert (named["done"]["recipe"], named["done"]["seed"]) == ("otc", 1)
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["run", "recipe", "steps", "state", "reward", "age", "commit"]
    (line,) = [line for line in printed if line.startswith("study/seed0/killed")]
    assert line.split()[1:5] == ["otc", "2/4", "stopped", "0.125"]


def test_show_has_settings_starts_checkpoints_and_policies(folder, monkeypatch, capsys):
    found = call(monkeypatch, folder, "show", folder / "done")
    assert found["settings"]["rate"] == {
        "name": "Config.rate",
        "value": "0.5",
        "origin": "otc.gin:3",
    }
    assert (found["checkpoints"], found["policies"]) == ([4], ["policy"])
    assert found["last"]["step"] == 3
    (start,) = found["starts"]
    assert (start["status"], start["from_step"]) == ("finished", 0)
    assert start["devices"]["platform"] == "cpu"
    printed = capsys.readouterr().out
    assert "python -m experiments.train" in printed
    assert "otc.gin:3" in printed
    assert "Config.steps" not in printed  # a default
    error = call(monkeypatch, folder, "show", folder / "refused")["starts"][0]["error"]
    assert error == "no policy there"


def test_diff_has_settings_and_versions_that_differ(folder, monkeypatch, capsys):
    make_run(folder / "other", 2, config=Config(rate=0.25))
    record = json.loads((folder / "other" / "run.json").read_text())
    record["starts"][0]["versions"]["jax"] = "0.0.1"
    (folder / "other" / "run.json").write_text(json.dumps(record))
    found = call(monkeypatch, folder, "diff", folder / "done", folder / "other")
    assert found["settings"] == [
        {"path": "rate", "name": "Config.rate", "before": "0.5", "now": "0.25"}
    ]
    assert [(one["name"], one["now"]) for one in found["versions"]] == [("jax", "0.0.1")]
    assert "Config.rate" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("list", "nowhere"), "nowhere is no directory"),
        (("show", "."), "is no run: neither run.json nor metrics.jsonl is in it"),
        (("show", "broken"), "run.json cannot be read"),
    ],
)
def test_what_is_no_run_is_one_line(tmp_path, monkeypatch, flags, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "run.json").write_text("[]")
    with pytest.raises(SystemExit, match=message) as caught:
        call(monkeypatch, tmp_path, *flags)
    assert str(caught.value).count("\n") == 1


def test_a_record_without_starts_is_written_and_read(tmp_path):
    RunRecord().write(tmp_path)
    assert json.loads((tmp_path / "run.json").read_text())["starts"] == []
