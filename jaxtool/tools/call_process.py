"""Runs a user's function in worker processes: what hangs is killed, what crashes ends its process alone.

As `call_thread`, and covers what threads cannot: os._exit, a crash in C, C code that never ends. A worker
imports the function's module by itself and keeps what the module keeps, until it is killed. Costs about a
tenth of a millisecond a call, and the import at the first call of each worker.

Not covered: state that lasts over a trajectory (workers are shared), limits of memory.
"""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Mapping
from typing import Any

from jaxtool.core.types import ToolUnavailable
from jaxtool.tools.call_thread import Outcome

_START_S = 60.0  # for a worker to import the function
_MAX_ANSWER_BYTES = 64 << 20
READY = b"ready"


class CallProcesses:
    """Workers that call one function, as many as there are calls at a time."""

    def __init__(self, call: str, max_chars: int):
        """Args: call is "module:name", as the worker imports it."""
        self._call = call
        self._max_chars = max_chars
        self._idle: list[asyncio.subprocess.Process] = []

    async def call(self, arguments: Mapping[str, Any]) -> Outcome:
        """What came of it. Cancelled, it kills the worker.

        Raises:
          ToolUnavailable: no worker could be started.
        """
        worker = self._idle.pop() if self._idle else await self._start()
        is_whole = False
        try:
            answer = await _ask(worker, json.dumps(arguments).encode())
            is_whole = True
        except (asyncio.IncompleteReadError, OSError):
            code = await _exit_code(worker)
            return Outcome(f"the tool's process ended with exit code {code}", "ProcessEnded")
        finally:
            if is_whole:
                self._idle.append(worker)
            else:
                await _killed(worker)
        return Outcome(**json.loads(answer))

    async def close(self) -> None:
        workers, self._idle = self._idle, []
        for worker in workers:
            await _killed(worker)

    async def _start(self) -> asyncio.subprocess.Process:
        worker = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "jaxtool.tools.function_worker", self._call, str(self._max_chars)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            # A module that this process finds in its own sys.path is found by the worker as well.
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path or "." for path in sys.path)},
        )
        try:
            async with asyncio.timeout(_START_S):
                await _read(worker)
        except (asyncio.IncompleteReadError, TimeoutError, OSError) as error:
            await _killed(worker)
            raise ToolUnavailable(f"a worker for {self._call} did not start: {error}") from error
        except asyncio.CancelledError:
            await _killed(worker)
            raise
        return worker


async def _ask(worker: asyncio.subprocess.Process, message: bytes) -> bytes:
    assert worker.stdin is not None
    worker.stdin.write(len(message).to_bytes(4, "big") + message)
    await worker.stdin.drain()
    return await _read(worker)


async def _read(worker: asyncio.subprocess.Process) -> bytes:
    assert worker.stdout is not None
    size = int.from_bytes(await worker.stdout.readexactly(4), "big")
    if size > _MAX_ANSWER_BYTES:
        raise OSError(f"an answer of {size} bytes")
    return await worker.stdout.readexactly(size)


async def _exit_code(worker: asyncio.subprocess.Process) -> int:
    """Of a worker whose pipe broke; it is killed if it lives on without one."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            return await worker.wait()
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    return await worker.wait()


async def _killed(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.kill()
    if worker.stdin is not None:
        worker.stdin.close()
    await worker.wait()
    if worker.stdout is not None:
        await worker.stdout.read()  # to its end, which closes the pipe
