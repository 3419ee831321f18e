"""How a host of several ends when another one has ended: one line on stderr, exit status 1, nothing left waiting.

A host that waits in a collective for one that is gone cannot be woken: so the thread that learns of it ends the process.
Not covered: how it learns of it (`host_network`).
"""

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import NoReturn

from jaxtool.parallel.host_network import SILENT_S, HostNetwork

_RESUMES = "the same command on all hosts resumes from the last checkpoint"
_OWN_WORD_S = (
    2.0  # hosts that fail together each say why, before one of them is named by the others
)
LAST_S = 5.0  # that host 0, which jax's service lives in, waits for the others to end


_KEPT: list[object] = []


class HostWatch:
    """What this host does when another one ends. `network` is set as soon as it is there."""

    def __init__(self, own: int, count: int):
        self.network: HostNetwork | None = None
        self._own, self._count = own, count
        self._speaking = threading.Lock()  # whoever has it says the line and ends the process
        self._lost: str | None = None
        _catch_abort(self._after_abort)

    def on_end(self, host: int, text: str | None) -> None:
        """Called by the network's threads."""
        if text == "":
            return  # its program is over; whoever still waits for it sees the connection close
        if text is None:
            self._lost = (
                f"error: host {host} of {self._count} has gone without a word: its process was killed, its machine "
                f"was taken away, or nothing came from it for {SILENT_S:.0f} s; {_RESUMES}"
            )
        else:
            time.sleep(_OWN_WORD_S)
            self._lost = f"error: host {host} of {self._count} ended: {text}"
        self._end(self._lost)

    def end(self, line: str) -> NoReturn:
        """Says the line, tells the others, and ends the process with status 1, without waiting for devices."""
        time.sleep(
            0.5
        )  # an error of a collective is how a lost host shows first: its own line is better
        self._end(line)

    def _end(self, line: str) -> NoReturn:
        self._speaking.acquire()  # never given back: what comes second says nothing
        print(line, file=sys.stderr, flush=True)
        sys.stdout.flush()
        if self.network is not None:
            self.network.leave(" ".join(line.removeprefix("error: ").split()))
            if self._own == 0:
                self.network.wait_until_left(LAST_S)
        os._exit(1)

    def _after_abort(self) -> None:
        """jax's client aborts as soon as host 0, where its service was, is gone: say so, as else."""
        until = time.monotonic() + 2
        while self._lost is None and time.monotonic() < until:
            time.sleep(0.05)
        if self._lost is not None:
            self._end(self._lost)


def _catch_abort(call: Callable[[], None]) -> None:
    """Has `call` made in the thread that aborts, before the process dies of it.

    `signal.signal` would not do: Python runs its handlers in the main thread, which waits for a device, and abort()
    does not return to it. Such a thread is none that holds Python's lock, so C's handler may ask for it.
    """

    def handle(number: int) -> None:
        signal.alarm(10)  # whatever happens here, the process ends
        libc.signal(number, None)  # the next abort is the system's
        call()

    libc = ctypes.CDLL(None)
    handler_type = ctypes.CFUNCTYPE(None, ctypes.c_int)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, handler_type], ctypes.c_void_p
    handler = handler_type(handle)
    _KEPT.append(handler)  # C holds a pointer to it
    libc.signal(signal.SIGABRT, handler)
