"""A host that ends before the others ends them too: soon, with one line that says who was the first and what to do."""

import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

HOST = Path(__file__).parents[1] / "helpers" / "ending_host.py"
AT_ONCE_S = (
    30  # seconds; alone on a machine less than one, or three where the others let it speak first
)
pytestmark = pytest.mark.slow


@pytest.fixture
def run_hosts(tmp_path):
    return partial(_run_hosts, tmp_path)


def _run_hosts(
    folder: Path, count: int, who: int, how: str, waits_in: str
) -> list[tuple[int, str, float]]:
    """Exit status, stderr and seconds from the joining to the end of each host."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(HOST), str(port), str(count)]
    running = [
        subprocess.Popen(
            [*command, str(index), str(who), how, waits_in, str(folder)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"JAXTOOL_TRACEBACK": ""},
        )
        for index in range(count)
    ]
    found = []
    try:
        for index in sorted(range(count), key=lambda index: index == who):  # one that hangs last
            process = running[index]
            if index == who and how == "silence":
                process.kill()
            out, errors = process.communicate(timeout=120)
            joined = float(out.split("joined ")[1].split()[0])
            found.append((index, process.returncode, errors, time.time() - joined))
    finally:
        for process in running:
            process.kill()
    return [tuple(rest) for _, *rest in sorted(found)]


@pytest.mark.parametrize(
    ("count", "who", "waits_in"),
    [(2, 1, "exchange"), (2, 1, "collective"), (3, 0, "collective")],
    ids=["in an exchange", "in a collective", "the first host"],
)
def test_a_host_that_is_killed_ends_the_others_at_once(run_hosts, count, who, waits_in):
    hosts = run_hosts(count, who, "kill", waits_in)
    for index, (status, errors, seconds) in enumerate(hosts):
        if index != who:
            assert status == 1, errors
            lines = [line for line in errors.splitlines() if line.startswith("error:")]
            assert len(lines) == 1, errors
            assert f"host {who} of {count} has gone without a word" in lines[0]
            assert "the same command on all hosts resumes from the last checkpoint" in lines[0]
            assert seconds < AT_ONCE_S
    assert hosts[who][0] == -9


def test_an_error_of_one_host_is_said_by_all(run_hosts):
    hosts = run_hosts(3, 1, "error", "exchange")
    for index, (status, errors, seconds) in enumerate(hosts):
        assert status == 1
        said = "error: " if index == 1 else "error: host 1 of 3 ended: "
        assert f"{said}its disk is full: make room" in errors
        assert seconds < AT_ONCE_S


def test_a_host_from_which_nothing_comes_is_given_up(run_hosts):
    """The test's hosts wait 2 s for a word where a run waits 60."""
    hosts = run_hosts(2, 1, "silence", "exchange")
    status, errors, seconds = hosts[0]
    assert status == 1
    assert "host 1 of 2 has gone without a word" in errors
    assert 2 < seconds < AT_ONCE_S


def test_hosts_that_finish_end_well(run_hosts):
    for status, errors, _ in run_hosts(2, 0, "finish", "exchange"):
        assert status == 0, errors


def test_one_host_that_is_told_to_stop_ends_all_with_status_0(run_hosts):
    """The other one waits for it in a collective."""
    for index, (status, errors, seconds) in enumerate(run_hosts(2, 0, "stop", "collective")):
        assert status == 0, errors
        said = "host 0 is told to stop" if index else "SIGTERM"
        assert f"{said}: the run stops within 25 s" in errors
        assert "error:" not in errors
        assert seconds < AT_ONCE_S
