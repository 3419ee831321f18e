"""Judges answers: numbers at once, everything else by math-verify in processes that can be killed.

Covered: extraction, the number path, worker processes with a hard time limit, counts of what happened.
Not covered: free-text answers (exact match after normalisation), several acceptable references.

math-verify evaluates what the policy wrote (9^9^9^9), and its own limit needs the main thread of a
process; so it runs in children, which die of a CPU-time limit. They are plain subprocesses, not multiprocessing ones: those would
import the parent's __main__ again, and with it jax.
"""

import dataclasses
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

from jaxtool.rewards import math_worker
from jaxtool.rewards.answers import equal_numbers, extract_answer

# Importing sympy and building a parser: 1 s on an idle core, many times that on a loaded one.
START_LIMIT_S = 120.0
# Wall time after which a child is killed that has not used up its CPU time, in CPU limits.
WALL_LIMITS = 30


@dataclasses.dataclass(kw_only=True)
class CheckCounts:
    """What became of the answers judged so far."""

    without_answer: int = 0
    by_number: int = 0
    by_math_verify: int = 0
    timed_out: int = 0  # over the CPU limit; judged wrong
    stalled: int = 0  # no reply and no CPU time used: the machine's fault; judged wrong
    failed: int = 0  # math-verify raised or died; judged wrong


class AnswerChecker:
    """Judges responses. A context manager; workers start when the first hard answer comes.

    Not for use from several threads at once.
    """

    def __init__(
        self, *, num_workers: int = 1, cpu_limit_s: float = 2.0, answer_tag: str = "answer"
    ) -> None:
        """Starts nothing.

        Args:
          num_workers: processes, 170 MB each at most in practice.
          cpu_limit_s: CPU seconds for one answer; 99 % of real ones take under 0.06.
          answer_tag: name of the tag around the answer.
        """
        if num_workers < 1 or cpu_limit_s <= 0:
            raise ValueError(
                f"need num_workers >= 1 and cpu_limit_s > 0: {num_workers=} {cpu_limit_s=}"
            )
        self._num_workers = num_workers
        self._cpu_limit_s = cpu_limit_s
        self._answer_tag = answer_tag
        self._workers: list[_Worker] = []
        self.counts = CheckCounts()

    def __enter__(self) -> "AnswerChecker":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers. The checker may be used again."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def check(self, texts: Sequence[str], references: Sequence[str]) -> list[bool]:
        """Whether the answer in each text is equivalent to its reference.

        Args:
          texts: policy text (`Trajectory.final_text`), with the answer in its tag or box.
          references: bare answers.

        Raises:
          RuntimeError: a worker cannot be started.
        """
        verdicts = [False] * len(texts)
        hard: deque[tuple[int, str, str]] = deque()
        for i, (text, reference) in enumerate(zip(texts, references, strict=True)):
            answer = extract_answer(text, tag=self._answer_tag)
            if answer is None:
                self.counts.without_answer += 1
                continue
            verdict = equal_numbers(answer, reference)
            if verdict is None:
                hard.append((i, answer, reference))
            else:
                self.counts.by_number += 1
                verdicts[i] = verdict
        try:
            if hard:
                self._run(hard, verdicts)
        except BaseException:
            self.close()  # a worker with a question in it would answer the next one wrongly
            raise
        return verdicts

    def _run(self, jobs: deque[tuple[int, str, str]], verdicts: list[bool]) -> None:
        """Feeds the jobs to the workers and writes the verdicts, until none is left."""
        busy: dict[_Worker, int] = {}
        with selectors.DefaultSelector() as selector:
            while jobs or busy:
                self._grow(min(self._num_workers, len(jobs) + len(busy)))
                for worker in [w for w in self._workers if w not in busy][: len(jobs)]:
                    i, answer, reference = jobs.popleft()
                    worker.ask(answer, reference, WALL_LIMITS * self._cpu_limit_s)
                    selector.register(worker.fileno(), selectors.EVENT_READ, worker)
                    busy[worker] = i
                wait_s = max(0.0, min(w.deadline for w in busy) - time.monotonic())
                events = selector.select(wait_s)
                ready = {key.data for key, _ in events}
                now = time.monotonic()
                for worker in [w for w in busy if w in ready or now >= w.deadline]:
                    reply = worker.read_reply() if worker in ready else None
                    if worker in ready and reply is None:
                        continue  # half a line so far
                    selector.unregister(worker.fileno())
                    verdicts[busy.pop(worker)] = self._judge(worker, reply)

    def _judge(self, worker: "_Worker", reply: dict[str, Any] | None) -> bool:
        """Counts one reply (None: too late); kills the worker if it is of no more use."""
        if reply is None or "died" in reply:
            worker.kill()
            self._workers.remove(worker)
            if reply is None:
                self.counts.stalled += 1
            elif worker.died_of_time():
                self.counts.timed_out += 1
            else:
                self.counts.failed += 1
            return False
        if "error" in reply:
            self.counts.failed += 1
            return False
        self.counts.by_math_verify += 1
        return reply["is_equivalent"]

    def _grow(self, size: int) -> None:
        """Starts workers until there are `size`; the time that takes is on no answer's account."""
        started = [_Worker(self._cpu_limit_s) for _ in range(size - len(self._workers))]
        self._workers += started
        for worker in started:
            worker.wait_until_ready()


class _Worker:
    """One child process and the bytes it has written."""

    def __init__(self, cpu_limit_s: float) -> None:
        # -P: the directory of the script is no place to import from. A session of its own: Ctrl-C is
        # for the run, which closes its workers itself.
        self._process = subprocess.Popen(
            [sys.executable, "-P", math_worker.__file__, str(cpu_limit_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._received = b""
        self.deadline = 0.0

    def fileno(self) -> int:
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def ask(self, answer: str, reference: str, limit_s: float) -> None:
        assert self._process.stdin is not None
        self.deadline = time.monotonic() + limit_s
        try:
            self._process.stdin.write((json.dumps([answer, reference]) + "\n").encode())
        except BrokenPipeError:
            return  # it is dead: the read that follows says so

    def read_reply(self) -> dict[str, Any] | None:
        """A whole reply; None while there is only part of one; {"died": ...} at the end of output."""
        chunk = os.read(self.fileno(), 65536)
        if not chunk:
            return {"died": True}
        self._received += chunk
        line, newline, rest = self._received.partition(b"\n")
        if not newline:
            return None
        self._received = rest
        return json.loads(line)

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
            raise RuntimeError(f"the answer checker's worker did not start: {reason}")

    def died_of_time(self) -> bool:
        return self._process.returncode == -signal.SIGPROF

    def kill(self) -> None:
        """Ends the process, if it has not ended by itself, and waits for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()
