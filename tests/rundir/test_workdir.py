"""A run directory belongs to one process at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtool.core import locks
from jaxtool.rundir.workdir import hold_workdir, holds_workdir, is_begun


def test_a_run_has_begun_once_something_worth_keeping_is_there(tmp_path):
    """A run opens its files empty before its first step, and makes the folder of its checkpoints."""
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "policy.unfinished").mkdir()
    assert not is_begun(tmp_path)
    (tmp_path / "checkpoints" / "2").mkdir()
    assert is_begun(tmp_path)


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
