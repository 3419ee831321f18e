"""The embedded server: comes up, says why when it does not, and never outlives its starter."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from jaxtool.tools.local_server import ServerStartError, run_local_server


def _is_running(pid: int) -> bool:
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_it_ends_with_the_block():
    with run_local_server() as server:
        assert _is_running(server.pid)
        folder = server.log_path.parent
    assert not _is_running(server.pid)
    assert not folder.exists()


def test_its_malloc_is_not_the_trainers(monkeypatch):
    monkeypatch.setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=0")
    with run_local_server() as server:
        environment = pathlib.Path(f"/proc/{server.pid}/environ").read_bytes().split(b"\0")
    assert any(entry.startswith(b"PATH=") for entry in environment)
    assert not any(entry.startswith(b"GLIBC_TUNABLES=") for entry in environment)


def test_a_refused_start_says_why_in_one_line():
    with (
        pytest.raises(ServerStartError, match="ended with code 2") as caught,
        run_local_server(flags=["--concurrency", "0"]),
    ):
        pass
    assert "concurrency" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_slow_start_is_given_up():
    with (
        pytest.raises(ServerStartError, match=r"not ready after 0\.01 s"),
        run_local_server(start_timeout_s=0.01),
    ):
        pass


def test_it_dies_with_a_killed_starter():
    code = (
        "import time\nfrom jaxtool.tools.local_server import run_local_server\n"
        "with run_local_server() as server:\n"
        "    print(server.pid, server.log_path.parent, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as starter:
        assert starter.stdout is not None
        pid, folder = starter.stdout.readline().decode().split()
        pid, folder = int(pid), pathlib.Path(folder)
        assert _is_running(pid)
        assert folder.is_dir()
        os.kill(starter.pid, signal.SIGKILL)
        starter.wait()
        stop = time.monotonic() + 20
        while _is_running(pid) and time.monotonic() < stop:
            time.sleep(0.05)
        assert not _is_running(pid)
        assert not folder.exists()
