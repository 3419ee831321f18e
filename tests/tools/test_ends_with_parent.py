"""The server of a run ends with the run, however the run ends, even where it ignores that its input is closed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers.mcp_calls import acts, bad

RUN = """
import asyncio, sys
from pathlib import Path
from helpers.mcp_calls import answered, bad, menu_of

async def main():
    menu = menu_of(bad("stays", Path(sys.argv[1])))
    try:
        print((await answered(menu, "act", {"how": "pid"})).stdout, flush=True)
        await asyncio.sleep(60)
    finally:
        await menu.close()

asyncio.run(main())
"""


def is_gone(pid: int, within_s: float = 20.0) -> bool:
    give_up = time.monotonic() + within_s
    while time.monotonic() < give_up:
        try:
            os.kill(pid, 0)
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (ProcessLookupError, FileNotFoundError):
            return True
        if state == "Z":  # it has ended; whoever inherited it has not looked yet
            return True
        time.sleep(0.02)
    return False


@pytest.mark.skipif(
    sys.platform != "linux", reason="the kernel's signal at a parent's death is Linux's"
)
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_or_interrupted_run_leaves_no_server(tmp_path, number):
    path = os.pathsep.join(str(folder) for folder in Path(__file__).parents[1:3])
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert run.stdout is not None
    server = int(run.stdout.readline())
    os.kill(server, 0)
    run.send_signal(number)
    run.communicate(timeout=60)
    assert is_gone(server)


def test_a_closed_menu_leaves_no_server(tmp_path):
    [pid] = acts(bad("stays", tmp_path / "log"), "pid")
    assert is_gone(int(pid.stdout))
