"""The end of another process's error stream: kept, bounded, and never in its way."""

import asyncio
import os
import subprocess
import sys

from jaxtool.tools.pipe_tail import PipeTail

WRITER = "import sys\nfor n in range(20000): print('line', n, file=sys.stderr)\nprint('\\n the   end\\udce9 ', file=sys.stderr)"


def test_only_the_end_is_kept_and_the_writer_never_waits():
    async def made():
        tail = PipeTail()
        command = [sys.executable, "-I", "-S", "-c", WRITER]
        process = await asyncio.create_subprocess_exec(*command, stderr=tail.writer)
        await tail.wait_for_end(60.0)
        await process.wait()
        lines = tail.last_lines()
        tail.close()
        return lines

    assert asyncio.run(made()) == "line 19998 | line 19999 | the end\\udce9"


def test_a_process_that_writes_nothing_and_lives_on_is_not_waited_for_long():
    async def made():
        tail = PipeTail()
        process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, stderr=tail.writer)  # fmt: skip
        await tail.wait_for_end(0.05)
        found = tail.last_lines()
        tail.close()
        tail.close()
        process.communicate(b"\n")
        return found

    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    assert asyncio.run(made()) == ""
    if before:
        assert len(os.listdir("/proc/self/fd")) == before
