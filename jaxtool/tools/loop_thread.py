"""An asyncio loop in a thread of its own, for clients that must go on while the run's loop stands still.

The run's loop rests between rollouts, and another thread may run it later. What has to answer a server in the
meantime, or belongs to one thread, lives here.
"""

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_END_TIMEOUT_S = 10.0


class LoopThread:
    """Runs from when it is made until it is closed; a daemon, so it keeps no process."""

    def __init__(self, name: str):
        started = threading.Event()
        self._thread = threading.Thread(target=self._main, args=(started,), daemon=True, name=name)
        self._thread.start()
        started.wait()

    async def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What it comes to, awaited from another loop. Cancelled, it is cancelled there as well."""
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(coroutine, self._loop))

    def wait_for(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """What it comes to; blocks the caller's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def close(self) -> None:
        """Cancels what is still running and ends the thread, or leaves it behind where it hangs."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_END_TIMEOUT_S)

    def _main(self, started: threading.Event) -> None:
        with asyncio.Runner() as runner:
            self._loop = runner.get_loop()
            self._loop.call_soon(started.set)
            self._loop.run_forever()
