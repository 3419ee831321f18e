"""How a host of several ends when another one has ended: one line on stderr, exit status 1, nothing left waiting.

A host that waits in a collective for one that is gone cannot be woken: so the thread that learns of it ends the process.
After a notice to stop the end of a host is no error: all end then, each in its own way (`jaxtool.rundir.stopping`).
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

from jaxtool.core.stopped import stop_status
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
        self._ends_s: float | None = None  # when this host will have ended, which is told to stop
        self._hearers: list[Callable[[int], object]] = []
        self._told_by: int | None = None
        self.is_left_alone = False  # told to stop, and another host has ended
        _catch_abort(self._after_abort)

    @property
    def is_stopping(self) -> bool:
        return self._ends_s is not None or self._told_by is not None

    @property
    def left_s(self) -> float:
        """Seconds that host 0, which jax's service lives in, waits for the others to end."""
        return LAST_S if self._ends_s is None else max(0.0, self._ends_s - time.monotonic())

    def stop(self, seconds: float) -> None:
        """This host is told to stop, and will have ended in so many seconds: tells the others."""
        self._ends_s = time.monotonic() + seconds
        if self.network is not None:
            self.network.tell_stop()

    def on_stop(self, host: int) -> None:
        """Called by the network's threads."""
        self._told_by = host
        for call in tuple(self._hearers):
            call(host)

    def hear_stop(self, call: Callable[[int], object]) -> None:
        """Has `call` made with the number of a host that is told to stop, also where that was before."""
        self._hearers.append(call)
        if self._told_by is not None:
            call(self._told_by)

    def forget(self, call: Callable[[int], object]) -> None:
        self._hearers.remove(call)

    def on_end(self, host: int, text: str | None) -> None:
        """Called by the network's threads."""
        if self.is_stopping and not text:
            self.is_left_alone = True
            return
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
        if self.is_stopping:
            os._exit(stop_status())
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
