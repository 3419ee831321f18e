"""The end of what another process writes to a pipe: its error stream, kept for messages and never shown else."""

import asyncio
import os

_KEPT_BYTES = 4096
_CHUNK_BYTES = 65536
_SHOWN_LINES = 3
_SHOWN_CHARS = 400


class PipeTail:
    """Reads in the running loop, so the writer never waits."""

    def __init__(self) -> None:
        self._reader, writing = os.pipe()
        os.set_blocking(self._reader, False)
        self.writer = os.fdopen(writing, "w")
        self._kept = b""
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._reader, self._read)

    def given_away(self) -> None:
        """The other process has the writing end; ours is closed, so its end is the end."""
        self.writer.close()

    def last_lines(self) -> str:
        """The last lines in one, such as "Traceback ... | ImportError: no mcp"; empty if there are none."""
        lines = self._kept.decode("utf-8", "replace").splitlines()
        said = [" ".join(line.split()) for line in lines if line.strip()]
        return " | ".join(said[-_SHOWN_LINES:])[-_SHOWN_CHARS:]

    async def wait_for_end(self, timeout_s: float) -> None:
        """Until nobody can write any more."""
        self.given_away()
        try:
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()
        except TimeoutError:
            return

    def close(self) -> None:
        self.given_away()
        if self._reader >= 0:
            self._loop.remove_reader(self._reader)
            os.close(self._reader)
            self._reader = -1
            self._ended.set()

    def _read(self) -> None:
        try:
            chunk = os.read(self._reader, _CHUNK_BYTES)
        except BlockingIOError:
            return
        if chunk:
            self._kept = (self._kept + chunk)[-_KEPT_BYTES:]
        else:
            self._loop.remove_reader(self._reader)
            self._ended.set()
