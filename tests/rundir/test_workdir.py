"""A run directory belongs to one process at a time."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jaxtool.core import locks
from jaxtool.parallel import hosts
from jaxtool.rundir import workdir
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


@pytest.fixture
def second_host(monkeypatch):
    """Makes this process one of two; a function says what the other one saw."""

    def made(sees: bool, name: str | None = None) -> None:
        monkeypatch.setattr(workdir, "SEEN_S", 0.1)
        monkeypatch.setattr(hosts, "is_single", lambda: False)
        agreed = (lambda decide: decide()) if name is None else (lambda decide: name)
        monkeypatch.setattr(hosts, "agree", agreed)
        others = ("/mnt/other", sees)
        both = (lambda own: [own, others]) if name is None else (lambda own: [others, own])
        monkeypatch.setattr(hosts, "exchange", both)

    return made


def test_hosts_that_see_one_directory_go_on_and_nothing_is_left_there(tmp_path, second_host):
    (tmp_path / ".hosts-of-a-killed-start").touch()
    second_host(sees=True)
    with hold_workdir(tmp_path):
        assert [path.name for path in tmp_path.iterdir()] == ["run.lock"]


def test_a_host_that_sees_another_directory_is_refused_by_all_before_anything_runs(
    tmp_path, second_host
):
    second_host(sees=False)
    with pytest.raises(ValueError, match="give a --workdir that all hosts share") as first:
        hold_workdir(tmp_path).__enter__()
    assert str(first.value).startswith(f"{tmp_path} of host 0 is not /mnt/other of host 1")
    second_host(sees=True, name=".hosts-not-here")
    with pytest.raises(ValueError, match=f"/mnt/other of host 0 is not {tmp_path} of host 1"):
        hold_workdir(tmp_path).__enter__()
