"""Processes that ask math-verify, with a limit of CPU time and memory for each question.

Covered: start, feeding, a question that takes too long, a worker that dies or stands still. Not covered:
when math-verify is asked at all (`mathematics`).

The workers are plain subprocesses, not multiprocessing ones: those would import the parent's __main__
again, and with it jax.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from jaxtool.judges import math_worker

# Importing sympy and building a parser: 1 s on an idle core, many times that on a loaded one.
START_LIMIT_S = 120.0
# Wall time after which a worker is killed that has not used up its CPU time, in CPU limits.
WALL_LIMITS = 30

STALLED = "stalled"
DIED = "the worker died"


class WorkerPool:
    """Workers that start when the first question comes. Not for use from several threads at once."""

    def __init__(self, *, num_workers: int, cpu_limit_s: float) -> None:
        """Starts nothing."""
        self._num_workers = num_workers
        self._cpu_limit_s = cpu_limit_s
        self.workers: list[Worker] = []

    def close(self) -> None:
        """Kills the workers. The pool may be used again."""
        for worker in self.workers:
            worker.kill()
        self.workers.clear()

    def ask(self, questions: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """The reply to each pair of answer and reference: "is_equivalent", or "error" with "is_late".

        Raises:
          RuntimeError: a worker cannot be started.
        """
        replies: list[dict[str, Any]] = [{} for _ in questions]
        try:
            self._run(deque(enumerate(questions)), replies)
        except BaseException:
            self.close()  # a worker with a question in it would answer the next one wrongly
            raise
        return replies

    def _run(self, jobs: deque[tuple[int, tuple[str, str]]], replies: list[dict[str, Any]]) -> None:
        """Feeds the jobs to the workers until none is left."""
        busy: dict[Worker, int] = {}
        with selectors.DefaultSelector() as selector:
            while jobs or busy:
                self._grow(min(self._num_workers, len(jobs) + len(busy)))
                for worker in [w for w in self.workers if w not in busy][: len(jobs)]:
                    i, question = jobs.popleft()
                    worker.ask(question, WALL_LIMITS * self._cpu_limit_s)
                    selector.register(worker.fileno(), selectors.EVENT_READ, worker)
                    busy[worker] = i
                wait_s = max(0.0, min(w.deadline for w in busy) - time.monotonic())
                ready = {key.data for key, _ in selector.select(wait_s)}
                now = time.monotonic()
                for worker in [w for w in busy if w in ready or now >= w.deadline]:
                    reply = worker.read_reply() if worker in ready else {"error": STALLED}
                    if reply is None:
                        continue  # half a line so far
                    selector.unregister(worker.fileno())
                    replies[busy.pop(worker)] = reply
                    if reply.get("error") == STALLED or "is_gone" in reply:
                        worker.kill()
                        self.workers.remove(worker)

    def _grow(self, size: int) -> None:
        """Starts workers until there are `size`; the time that takes is on no answer's account."""
        started = [Worker(self._cpu_limit_s) for _ in range(size - len(self.workers))]
        self.workers += started
        for worker in started:
            worker.wait_until_ready()


class Worker:
    """One process with its child, and the bytes it has written."""

    def __init__(self, cpu_limit_s: float) -> None:
        # -P: the directory of the script is no place to import from. A session of its own: Ctrl-C is
        # for the run, which closes its workers itself, and `kill` reaches the child.
        self.process = subprocess.Popen(
            [sys.executable, "-P", math_worker.__file__, str(cpu_limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._received = b""
        self._question = ("", "")  # asked last, and its number
        self._number = 0
        self.deadline = 0.0

    def fileno(self) -> int:
        assert self.process.stdout is not None
        return self.process.stdout.fileno()

    def ask(self, question: tuple[str, str], limit_s: float) -> None:
        assert self.process.stdin is not None
        self.deadline = time.monotonic() + limit_s
        self._question = question
        self._number += 1
        try:
            self.process.stdin.write((json.dumps([self._number, *question]) + "\n").encode())
        except BrokenPipeError:
            return  # it is dead: the read that follows says so

    def read_reply(self) -> dict[str, Any] | None:
        """A whole reply; None while there is only part of one; with "is_gone" at the end of output."""
        chunk = os.read(self.fileno(), 65536)
        if not chunk:
            return {"error": DIED, "is_late": False, "is_gone": True}
        self._received += chunk
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            reply = json.loads(line)
            number = reply.pop("id", self._number)
            if number == self._number:
                return reply
            if number == 0:  # the child died between two questions, and may have lost this one
                self.ask(self._question, self.deadline - time.monotonic())
        return None

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + START_LIMIT_S
        reply = None
        with selectors.DefaultSelector() as selector:
            selector.register(self.fileno(), selectors.EVENT_READ)
            while reply is None and time.monotonic() < deadline:
                if selector.select(deadline - time.monotonic()):
                    reply = self.read_reply()
        if reply is None or "ready" not in reply:
            self.kill()
            reason = f"not ready in {START_LIMIT_S} s" if reply is None else reply
            raise RuntimeError(f"the mathematical judge's worker did not start: {reason}")

    def kill(self) -> None:
        """Ends the process and its child, if they have not ended by themselves, and waits."""
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)  # its session: itself and its child
        self.process.wait()
