"""Directories of killed processes go at the next start; those in use stay."""

import fcntl
import os
import signal
import subprocess
import sys
import tempfile

import pytest

from jaxtool.core.locks import Held, hold, temporary_directory

HOLDER = """
import sys, tempfile, time
from jaxtool.core.locks import temporary_directory
tempfile.tempdir = sys.argv[1]
with temporary_directory("sandbox-") as folder:
    (folder / "log").write_text("x")
    print(folder, flush=True)
    time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _own_temporary(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))


def test_what_a_killed_process_left_goes_at_the_next_start(tmp_path):
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        left = other.stdout.readline().decode().strip()
        with temporary_directory("sandbox-") as folder:
            assert os.path.isdir(left)  # it is in use
            assert str(folder) != left
        assert not folder.exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert os.path.isdir(left)
    with temporary_directory("sandbox-"):
        assert not os.path.exists(left)


def test_directories_of_others_stay(tmp_path):
    (tmp_path / "sandbox-of-somebody").mkdir()  # no lock in it: not ours
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "lock").touch()
    (tmp_path / "sandbox-file").touch()
    with temporary_directory("sandbox-") as folder:
        assert folder.is_dir()
    assert {p.name for p in tmp_path.iterdir()} == {"sandbox-of-somebody", "other", "sandbox-file"}


def test_a_lock_is_for_one_and_free_after_the_block(tmp_path):
    path = tmp_path / "a.lock"
    with hold(path), pytest.raises(Held, match=f"process {os.getpid()} on "), hold(path):
        pass
    with hold(path):
        pass
    path.write_text("no json")
    number = os.open(path, os.O_RDWR)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        with pytest.raises(Held, match="another process"), hold(path):
            pass
    finally:
        os.close(number)
