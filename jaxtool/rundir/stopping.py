"""A run that is told to stop: SIGTERM, which spot machines, SLURM and Kubernetes send before they take a machine, or a
file WORKDIR/stop.

Who takes a machine waits 30 s. So within 25 s of the notice the process ends with status 0, whatever its loop does then:

1. The notice is seen by a thread at once, also while the loop is inside a compiled program.
2. The loop asks `check` between windows, before an update and between steps, and raises `Stopped`.
3. Where it does not come so far, in a long update or behind a slow disk, the thread ends the process itself. That is safe at
   any moment: what a kill leaves is resumed from, and finished answers are on the disk before (`rollout_journal`).

On several hosts one that is told tells the others over their connections; the first one looks for the file. A host that
waits for one that has ended is ended as in 3. jax's own service (`multihost_utils.reached_preemption_sync_point`) agrees on
a later step to stop at, and a step may take an hour here.

Ctrl-C may take its time: a checkpoint that is being written is written. A second one ends the process at once.
"""

import contextlib
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Self

from jaxtool.core.stopped import Stopped, stop_status
from jaxtool.parallel import hosts

STOP = "stop"  # in a work directory: touch it to stop the run
GRACE_S = 25.0  # from the notice to the end of the process; 30 s are given on spot machines and by Kubernetes
_FLUSH_S = 2.0  # of it, kept for what is still to be written
_INTERRUPTED = 130  # exit status of a process that Ctrl-C ended, as shells count
_POLL_S = 1.0  # between two looks at the file
_ALONE_S = 2.0  # that a host has to notice by itself that another one has ended


class StopNotice:
    """Whether this run is told to stop. A context manager in the thread that trains.

    Args:
      workdir: whose file `stop` counts; None: no notice ever comes.
      keeps: what is not lost, for the line that says so.
      grace_s: seconds from the notice to the end of the process.
      end: ends the process with a status; tests put their own here.
    """

    def __init__(
        self,
        workdir: Path | None = None,
        *,
        keeps: str = "finished answers",
        grace_s: float = GRACE_S,
        end: Callable[[int], None] = os._exit,
    ):
        self._file = None if workdir is None else workdir / STOP
        self._keeps, self._grace_s, self._end = keeps, grace_s, end
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], object]] = []
        self._last_words: list[Callable[[], object]] = []
        self._asked_s: float | None = None
        self._is_agreed = self._is_raised = False
        self._is_left = threading.Event()
        self._interrupts = 0
        self._thread = threading.Thread(target=self._watch, name="stop notice", daemon=True)

    def __enter__(self) -> Self:
        if self._file is None:
            return self
        if hosts.is_first():
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)  # of the start before
        self._stack = contextlib.ExitStack()
        self._ours, self._theirs = socket.socketpair()
        if threading.current_thread() is threading.main_thread():
            self._stack.enter_context(self._hears_signals())
        self._stack.enter_context(
            hosts.hears_stop(lambda host: self.ask(f"host {host} is told to stop"))
        )
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        if self._file is None:
            return
        self._is_left.set()
        self._stack.close()
        self._theirs.close()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._ours.close()

    @property
    def is_asked(self) -> bool:
        return self._asked_s is not None

    @property
    def left_s(self) -> float:
        """Seconds until the process ends; all of them before a notice."""
        if self._asked_s is None:
            return self._grace_s
        return max(0.0, self._asked_s + self._grace_s - time.monotonic())

    def check(self) -> None:
        """Raises Stopped if the run is told to stop."""
        if self.is_asked:
            self._is_raised = True
            raise Stopped

    def is_agreed(self) -> bool:
        """Whether any host is told to stop; all hosts call it at the end of a step, and all know it then."""
        if any(hosts.exchange(self.is_asked)):
            self.ask("another host is told to stop")
            self._is_agreed = True
        return self._is_agreed

    def check_step(self) -> None:
        """As `check`, between two steps: on several hosts all raise it behind the same step."""
        if hosts.is_single() or self._is_agreed:
            self.check()

    @contextlib.contextmanager
    def noticed(self, call: Callable[[], object]) -> Iterator[None]:
        """Has `call` made in the thread that sees the notice, if it comes within the block or was there before."""
        with self._lock:
            self._callbacks.append(call)
            is_asked = self.is_asked
        if is_asked:
            call()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.remove(call)

    def before_the_end(self, call: Callable[[], object]) -> None:
        """Has `call` made where the thread ends the process itself, the last one given first."""
        self._last_words.append(call)

    def ask(self, why: str) -> None:
        """The notice. Later ones change nothing."""
        with self._lock:
            if self.is_asked:
                return
            self._asked_s = time.monotonic()
            callbacks = list(self._callbacks)
        print(
            f"{why}: the run stops within {self._grace_s:g} s; {self._keeps} are kept, and the same command "
            "resumes it",
            file=sys.stderr,
            flush=True,
        )
        if self._file is not None:
            hosts.tell_stop(self.left_s)
        for call in callbacks:
            call()

    @contextlib.contextmanager
    def _hears_signals(self) -> Iterator[None]:
        """SIGTERM becomes a byte that the thread reads; a handler in Python waits for compiled code to return."""
        self._theirs.setblocking(False)
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        descriptor = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(descriptor)
            signal.signal(signal.SIGTERM, handler)

    def _watch(self) -> None:
        looks = hosts.is_first()
        while not self._is_left.is_set():
            with contextlib.suppress(OSError):
                ready, _, _ = select.select([self._ours], [], [], _POLL_S)
                heard = self._ours.recv(64) if ready else b""
                if signal.SIGTERM in heard:
                    self.ask("SIGTERM")
                self._interrupts += heard.count(signal.SIGINT)
            if self._interrupts > 1:
                self._end_at_once()
                return
            if looks and self._file is not None and not self.is_asked and self._file.exists():
                self.ask(f"{self._file} is there")
            if self.is_asked:
                self._end_in_time()
                return

    def _end_at_once(self) -> None:
        """The second Ctrl-C: what the first one waits for (a checkpoint, a window, a server) is given up."""
        print(
            "\nended at once; the same command resumes from the last checkpoint",
            file=sys.stderr,
            flush=True,
        )
        self._end(_INTERRUPTED)

    def _end_in_time(self) -> None:
        """Waits until the block is left; ends the process where that takes too long."""
        alone_s = 0.0
        while (left_s := self.left_s - _FLUSH_S) > 0 and alone_s < _ALONE_S:
            began = time.monotonic()
            if self._is_left.wait(min(left_s, _POLL_S)):
                return
            if hosts.is_left_alone() and not self._is_raised:
                alone_s += time.monotonic() - began
        print(
            "the run is ended where it is: what it was doing is done again",
            file=sys.stderr,
            flush=True,
        )
        for call in reversed(self._last_words):
            with contextlib.suppress(Exception):
                call()
        hosts.say_end()
        self._end(stop_status())


@contextlib.contextmanager
def ends_on_sigterm() -> Iterator[None]:
    """SIGTERM raises Stopped in the main thread: for commands whose files are whole at any moment."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        print("SIGTERM: stopped; the same command resumes", file=sys.stderr, flush=True)
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


NEVER = StopNotice()
