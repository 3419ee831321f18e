"""A run directory belongs to one configuration and one seed."""

import dataclasses
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from jaxtool.algos.kl import kl_k1, kl_k3
from jaxtool.core import locks
from jaxtool.rundir.workdir import claim_workdir, hold_workdir, holds_workdir, is_begun


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int


@dataclasses.dataclass(frozen=True)
class Chosen:
    of: tuple[Config, ...]
    estimator: Callable[..., object]


def begin(workdir: Path) -> None:
    (workdir / "metrics.jsonl").write_text('{"step":0}\n')


def test_a_chosen_function_is_recorded_by_its_name_which_every_process_shares(tmp_path):
    claim_workdir(tmp_path, Chosen((Config(3),), kl_k3), 0, None)
    text = (tmp_path / "run_config.txt").read_text()
    assert "estimator=jaxtool.algos.kl.kl_k3" in text
    assert " at 0x" not in text
    begin(tmp_path)
    with pytest.raises(ValueError, match=r"there: estimator=\S+kl_k3\),?; now: estimator=\S+kl_k1"):
        claim_workdir(tmp_path, Chosen((Config(3),), kl_k1), 0, None)


def test_the_same_run_may_claim_it_again_and_no_other(tmp_path):
    workdir = tmp_path / "a" / "b"
    claim_workdir(workdir, Config(3), 0, None)
    begin(workdir)
    claim_workdir(workdir, Config(3), 0, None)
    for config, seed, init_from, named in (
        (Config(4), 0, None, r"there: Config\(steps=3\); now: Config\(steps=4\)"),
        (Config(3), 1, None, "there: seed = 0; now: seed = 1"),
        (Config(3), 0, tmp_path, "there: init_from = None; now: init_from = "),
    ):
        with pytest.raises(ValueError, match=named) as caught:
            claim_workdir(workdir, config, seed, init_from)
        assert "choose another --workdir" in str(caught.value)


def test_a_start_that_came_to_nothing_does_not_own_the_directory(tmp_path):
    """A run opens its files empty before its first step, and makes the folder of its checkpoints."""
    claim_workdir(tmp_path, Config(3), 0, Path("typo"))
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "policy.unfinished").mkdir()
    assert not is_begun(tmp_path)
    claim_workdir(tmp_path, Config(3), 0, None)
    assert "init_from = None" in (tmp_path / "run_config.txt").read_text()
    (tmp_path / "checkpoints" / "2").mkdir()
    assert is_begun(tmp_path)
    with pytest.raises(ValueError, match="there: init_from = None; now: init_from = typo"):
        claim_workdir(tmp_path, Config(3), 0, Path("typo"))


HOLDER = """
import os, sys, time
from pathlib import Path
from jaxtool.core.locks import hold
with hold(Path(sys.argv[1])):
    print(os.getpid(), flush=True)
    time.sleep(60)
"""


def test_two_processes_in_one_directory_are_refused_and_a_dead_one_is_no_hindrance(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        pid = int(other.stdout.readline())
        said = pytest.raises(ValueError, match=f"is in use by process {pid} on ")
        with said as caught, hold_workdir(tmp_path):
            pass
        assert os.uname().nodename in str(caught.value)
        assert "choose another --workdir" in str(caught.value)
        other.send_signal(signal.SIGKILL)
        other.wait()
    with hold_workdir(tmp_path):
        assert f'"pid": {os.getpid()}' in (tmp_path / "run.lock").read_text()


def test_a_run_holds_its_directory_while_it_runs(tmp_path):
    @holds_workdir
    def train(config: int, *, workdir: Path) -> Path:
        with pytest.raises(ValueError, match="in use by process"), hold_workdir(workdir):
            pass
        if config < 0:
            raise ValueError("a typo")
        return workdir / "policy"

    with pytest.raises(ValueError, match="a typo"):
        train(-1, workdir=tmp_path / "a")
    assert train(1, workdir=tmp_path / "a") == tmp_path / "a" / "policy"


def test_a_file_system_without_locks_is_said_and_used(tmp_path, monkeypatch, capsys):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(locks.fcntl, "flock", no_locks)
    with hold_workdir(tmp_path):
        pass
    assert "without locks" in capsys.readouterr().err


def test_a_directory_that_cannot_be_written_is_an_error(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(locks.os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"), hold_workdir(tmp_path):
        pass
