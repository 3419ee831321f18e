"""`experiments.top`: a run that lives, has ended in any way, or is no run; from its files alone."""

import contextlib
import dataclasses
import json
import subprocess
import sys
import time

import pytest

from jaxtool.cli import entry, top
from jaxtool.core.locks import hold
from jaxtool.rundir.live_status import LIVE, LiveStatus, write_live
from jaxtool.rundir.run_record import LOCK, read_record
from jaxtool.rundir.run_start import Identity, Launch, open_start

LAUNCH = Launch(files=("gin_configs/runs/otc.gin",), command=("python",))
ROW = {
    "step": 10,
    "time_s": 1.0,
    "reward/mean": 0.53125,
    "timing/share_fraction/decoder": 0.2,
    "timing/share_fraction/tool": 0.71,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    steps: int = 100


def status(**fields):
    values = {
        "written_at": time.time(),
        "every_s": 30.0,
        "step": 11,
        "steps": 100,
        "phase": "rollouts",
        "phase_s": 90.0,
        "step_s": 90.0,
        "answers_done": 12,
        "answers_asked": 64,
        "left_step_s": 60.0,
        "left_run_s": 3600.0,
        "warnings": {"mismatch": "sampler and learner differ: 1"},
    }
    return LiveStatus(**(values | fields))


@contextlib.contextmanager
def started(workdir):
    workdir.mkdir()
    identity = Identity(config=Config(), seed=1, init_from=None, steps=100)
    with open_start(workdir, identity, launch=LAUNCH) as start:
        start.begin(0)
        (workdir / "metrics.jsonl").write_text(json.dumps(ROW) + "\n")
        yield start


def look(monkeypatch, tmp_path, *flags, capsys):
    """What a command printed, and its JSON."""
    monkeypatch.setattr(entry, "prepare", lambda: None)
    record = tmp_path / "said.json"
    monkeypatch.setattr("sys.argv", ["top", *map(str, flags), "--json", str(record)])
    capsys.readouterr()
    entry.run(top.main)
    return capsys.readouterr().out, json.loads(record.read_text())


@pytest.fixture
def see(monkeypatch, tmp_path, capsys):
    return lambda *flags: look(monkeypatch, tmp_path, *flags, capsys=capsys)


def test_a_live_run_is_shown_with_its_step_and_what_is_left(tmp_path, see):
    run = tmp_path / "run"
    with started(run), hold(run / LOCK):
        write_live(run, status())
        printed, record = see(run)
    first, state, made, now, left, last, warning = printed.splitlines()
    assert first.endswith("run  otc")
    assert state.startswith("running (process ")
    assert made == "steps made: 11 of 100"
    assert now.startswith("step 12/100  rollouts 1:30  answers 12/64")
    assert left.startswith("left of the run: 1:00:00  (seen 0:0")
    assert last == "last row: reward 0.5312  bottleneck tool 71%"
    assert warning == "warning: sampler and learner differ: 1"
    assert (record["state"], record["ending"], record["is_silent"]) == ("running", None, False)
    assert (record["left_step_s"], record["left_run_s"]) == (60.0, 3600.0)
    assert record["bottleneck"] == {"part": "tool", "share": 0.71}
    assert record["live"]["answers_done"] == 12


def test_a_process_that_lives_and_says_nothing_is_silent(tmp_path, see):
    run = tmp_path / "run"
    with started(run), hold(run / LOCK):
        record = read_record(run)
        assert record is not None
        early = dataclasses.replace(record.starts[-1], started="2026-01-01T00:00:00+00:00")
        dataclasses.replace(record, starts=(early,)).write(run)
        write_live(run, status(written_at=time.time() - 100))
        printed, found = see(run, "--once")
        assert "warning: no sign of life for 1:4" in printed
        assert found["is_silent"]
        write_live(run, status(written_at=time.time() - 100, every_s=0.0))
        assert not see(run)[1]["is_silent"]


def test_a_state_of_an_earlier_start_is_not_of_this_one(tmp_path, see):
    run = tmp_path / "run"
    with started(run), hold(run / LOCK):
        write_live(run, status(written_at=time.time() - 100))
        printed, record = see(run)
    assert "no step yet: it reads weights and compiles" in printed
    assert record["live"] is None


def test_a_killed_an_interrupted_a_failed_and_a_finished_run_say_so(tmp_path, see):
    ends = {"killed": None, "interrupted": KeyboardInterrupt, "failed": OSError("a full disk")}
    for name, error in ends.items():
        with contextlib.suppress(OSError, KeyboardInterrupt), started(tmp_path / name):
            write_live(tmp_path / name, status())
            if error is not None:
                raise error
    killed, record = see(tmp_path / "killed")
    assert "stopped: its process is gone without a word" in killed
    assert "last seen 0:0" in killed
    assert (record["process"], record["left_run_s"]) == (None, None)
    assert "stopped: it was interrupted" in see(tmp_path / "interrupted")[0]
    assert "failed: a full disk" in see(tmp_path / "failed")[0]
    done = tmp_path / "done"
    with started(done) as start:
        (done / "policy").mkdir()
        (done / "policy" / "model_config.json").write_text("{}")
        start.finish()
        write_live(done, status(step=100, phase=""))
    printed, record = see(done)
    assert printed.splitlines()[1:3] == ["finished", "steps made: 100 of 100"]
    assert record["ending"] == "finished"


def test_a_state_that_is_older_than_the_last_row_is_not_shown_as_the_present(tmp_path, see):
    run = tmp_path / "run"
    with started(run), hold(run / LOCK):
        write_live(run, status(step=9))
        printed, record = see(run)
    assert "rollouts" not in printed
    assert "left of the run: 1:00:00" in printed
    assert record["step"] == 11


def test_a_run_of_an_earlier_version_has_no_state_and_is_shown(tmp_path, see):
    run = tmp_path / "run"
    with started(run):
        pass
    assert not (run / LIVE).exists()
    assert see(run)[1]["step"] == 11


def test_what_is_no_run_is_refused_in_one_line(tmp_path):
    command = [sys.executable, "-m", "experiments.top"]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    line, _ = done.stderr.splitlines()
    assert line == f"error: {tmp_path} is no run: neither run.json nor metrics.jsonl is in it"
    assert done.stdout == ""


def test_on_a_terminal_it_looks_again_until_the_run_ends(tmp_path, monkeypatch, capsys):
    looks = iter([("one", True), ("two", True), ("three", False)])
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.setattr(top, "look", lambda *_: next(looks))
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setattr("sys.argv", ["top", str(tmp_path), "--every_s", "0.1"])
    entry.run(top.main)
    assert "three" in capsys.readouterr().out
    assert next(looks, None) is None


def test_looks_that_are_too_fast_are_refused(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["top", "runs/mine", "--every_s", "0"])
    with pytest.raises(SystemExit):
        top.parse()
    assert "--every_s 0 must be at least 0.1 seconds" in capsys.readouterr().err
