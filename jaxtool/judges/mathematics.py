"""The mathematical judge: numbers at once, everything else by math-verify in processes that can be killed.

Covered: the number path, worker processes with a hard time limit, counts of what happened.
Not covered: words (`exact_match`), where the answer stands (`answer_format`).

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
from typing import Any, ClassVar

from jaxtool.core.types import Problem, Verdict
from jaxtool.judges import math_worker
from jaxtool.judges.base import Case, RunPrograms
from jaxtool.judges.numbers import equal_numbers
from jaxtool.judges.word_match import is_words

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mathematics:
    """Right is what is mathematically equal to the reference."""

    max_unfit: ClassVar[float] = 0.5  # words are compared as words; most of a set should not be
    runs_programs: ClassVar[bool] = False
    num_workers: int = 1  # processes, 170 MB each at most in practice
    cpu_limit_s: float = 2.0  # CPU seconds for one answer; 99 % of real ones take under 0.06

    def __post_init__(self) -> None:
        if self.num_workers < 1 or self.cpu_limit_s <= 0:
            raise ValueError(
                f"need Mathematics.num_workers >= 1 and cpu_limit_s > 0: {self.num_workers=} "
                f"{self.cpu_limit_s=}"
            )

    def unfit(self, problem: Problem) -> str | None:
        """ "are words" where a reference is no mathematics."""
        return "are words" if all(map(is_words, problem.references)) else None

    def open(self, run_programs: RunPrograms | None = None) -> "MathematicsJudge":
        """The judge, without any process yet."""
        del run_programs
        return MathematicsJudge(num_workers=self.num_workers, cpu_limit_s=self.cpu_limit_s)


class MathematicsJudge:
    """`Mathematics` at work. A context manager; workers start when the first hard answer comes.

    Not for use from several threads at once.
    """

    def __init__(self, *, num_workers: int, cpu_limit_s: float) -> None:
        """Starts nothing."""
        self._num_workers = num_workers
        self._cpu_limit_s = cpu_limit_s
        self._workers: list[_Worker] = []
        self.counts = CheckCounts()

    def __enter__(self) -> "MathematicsJudge":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Kills the workers. The judge may be used again."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()

    def judge(self, cases: Sequence[Case]) -> list[Verdict | None]:
        """Whether the answer of each case is equivalent to its reference.

        Raises:
          RuntimeError: a worker cannot be started.
        """
        verdicts: list[Verdict | None] = [None] * len(cases)
        hard: deque[tuple[int, str, str]] = deque()
        for i, case in enumerate(cases):
            if case.answer is None:
                self.counts.without_answer += 1
                verdicts[i] = _verdict(False, "no answer")
                continue
            is_equal = equal_numbers(case.answer, case.problem.answer)
            if is_equal is None:
                hard.append((i, case.answer, case.problem.answer))
            else:
                self.counts.by_number += 1
                verdicts[i] = _verdict(is_equal, "numbers")
        try:
            if hard:
                self._run(hard, verdicts)
        except BaseException:
            self.close()  # a worker with a question in it would answer the next one wrongly
            raise
        return verdicts

    def _run(self, jobs: deque[tuple[int, str, str]], verdicts: list[Verdict | None]) -> None:
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

    def _judge(self, worker: "_Worker", reply: dict[str, Any] | None) -> Verdict:
        """Counts one reply (None: too late); kills the worker if it is of no more use."""
        if reply is None or "died" in reply:
            worker.kill()
            self._workers.remove(worker)
            if reply is None:
                self.counts.stalled += 1
                return _verdict(False, "stalled")
            if worker.died_of_time():
                self.counts.timed_out += 1
                return _verdict(False, "out of time")
            self.counts.failed += 1
            return _verdict(False, "the worker died")
        if "error" in reply:
            self.counts.failed += 1
            return _verdict(False, f"unreadable: {reply['error']}")
        self.counts.by_math_verify += 1
        return _verdict(reply["is_equivalent"], "math-verify")

    def _grow(self, size: int) -> None:
        """Starts workers until there are `size`; the time that takes is on no answer's account."""
        started = [_Worker(self._cpu_limit_s) for _ in range(size - len(self._workers))]
        self._workers += started
        for worker in started:
            worker.wait_until_ready()


def _verdict(is_correct: bool, how: str) -> Verdict:
    return Verdict(score=float(is_correct), is_correct=is_correct, how=how)


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
            raise RuntimeError(f"the mathematical judge's worker did not start: {reason}")

    def died_of_time(self) -> bool:
        return self._process.returncode == -signal.SIGPROF

    def kill(self) -> None:
        """Ends the process, if it has not ended by itself, and waits for it."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()
