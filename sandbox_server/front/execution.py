"""One run in a child: sends the job, drains its pipes, holds its clocks, says how it ended.

The status comes from the kernel and from what this process did itself; the child's own words
(value, error type, texts) are passed on as untrusted. Knows no gRPC.

A run of `print(1 + 1)` with a CPU limit of 2 s:

  out: control  4 bytes of length, {"code": "print(1 + 1)", "stdin": "", "cpu_s": 4, ...}
  in:  control  b"\\n": the child is locked and begins; the wall clock starts
  in:  stdout   b"2\\n"
  in:  control  b'{"exit": 0}\\n': the report, the child's own words
  in:  exit     status 0, 9 ms CPU: from the fork server, which reaped it
  ->   Outcome(status=OK, exit_code=0, stdout="2\\n", cpu_ms=9, ...)

The CPU clock counts from the job on. With `while True: pass` nothing follows the first byte: at 2 s
of CPU the front end kills the child, remembers why, and the exit (signal 9) becomes CPU_LIMIT.
"""

import asyncio
import contextlib
import dataclasses
import enum
import json
import math
import os
import time
from collections.abc import Callable

from sandbox_server.config import LimitSet
from sandbox_server.front.capture import Capture
from sandbox_server.front.fork_server import Child, Exit, ForkServerGone
from sandbox_server.inside import exits

_REPORT_SLACK_BYTES = 16 << 10  # of a report, besides its value
_FETCHED_FILES_BYTES = (
    2 << 20
)  # of a report, where the job asks for files: `runner.FETCH_BYTES` in base64
_BYTES_PER_CHAR = 12  # JSON writes a character outside the basic plane as two \\uXXXX
_BIRTH_TIMEOUT_S = 30.0
_SESSION_BLOCK_BIRTH_TIMEOUT_S = 5.0  # a session's process may be in the hands of its program
_GRACE_S = 30.0  # beyond the clocks, for the news of an end to come
_TINY_BYTES = 4096
_FREE_TINY_READS = 256  # after these the pipes are given time to fill
_REST_S = 0.002
_CORES = os.cpu_count() or 1


class Status(enum.IntEnum):
    """As in sandbox.proto."""

    OK = 1
    ERROR = 2
    CPU_LIMIT = 3
    WALL_LIMIT = 4
    MEMORY_LIMIT = 5
    OUTPUT_LIMIT = 6
    KILLED = 7


class BrokenChild(Exception):
    """A child failed before the program began: infrastructure, not the program."""


class FilesNotWritten(Exception):
    """The files of a request could not be written, and no program ran: the request is to blame."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a run ended. The texts are the program's."""

    status: Status
    stdout: Capture
    stderr: Capture
    report: dict
    exit_code: int
    signal: int
    cpu_ms: int
    wall_ms: int
    peak_bytes: int


def cpu_clock(pid: int) -> int:
    """Clock id of the CPU time of a process (all threads), as clock_getcpuclockid builds it."""
    return (~pid << 3) | 2


def job_limits(limits: LimitSet, task_allowance: int) -> dict:
    """The part of a job that the child enforces on itself before the program."""
    return {
        "cpu_s": -(-limits.cpu_ms // 1000) + 2,
        "memory_bytes": limits.memory_bytes,
        "scratch_bytes": limits.scratch_bytes,
        "threads": limits.threads,
        "task_allowance": task_allowance,
        "value_chars": limits.output_bytes,
    }


class Run:
    """One run of one child, from the job to the verdict. Use once.

    `is_session_block`: the child has run user code before, so it is watched from the first moment.
    """

    def __init__(
        self, child: Child, limits: LimitSet, flood_bytes: int, *, is_session_block: bool = False
    ):
        self._is_block = is_session_block
        self._child = child
        self._limits = limits
        self._flood_bytes = max(flood_bytes, 2 * limits.output_bytes)
        self._report_bytes = _BYTES_PER_CHAR * limits.output_bytes + _REPORT_SLACK_BYTES
        self._loop = asyncio.get_running_loop()
        self._stdout = Capture(limits.output_bytes)
        self._stderr = Capture(limits.output_bytes)
        self._words = bytearray()
        self._verdict: Status | None = None
        self._start = 0.0
        self._cpu_start = 0.0
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._outbox = b""
        self._is_writing = False
        self._reading: list[int] = []
        self._tiny_reads = 0
        self.spoke: asyncio.Future[None] = self._loop.create_future()  # a whole report has come

    def begin(self, job: dict) -> None:
        """Sends the job and starts to watch."""
        if job.get("fetch_files"):
            self._report_bytes += _FETCHED_FILES_BYTES
        body = json.dumps(job).encode()
        self._outbox = len(body).to_bytes(4, "big") + body
        for fd, handler in (
            (self._child.stdout, self._on_stdout),
            (self._child.stderr, self._on_stderr),
            (self._child.control.fileno(), self._on_control),
        ):
            self._loop.add_reader(fd, handler)
            self._reading.append(fd)
        # Here and not at the start: a late look at the clock would give the program CPU for free.
        self._cpu_start = self._cpu_seconds()
        birth_s = _SESSION_BLOCK_BIRTH_TIMEOUT_S if self._is_block else _BIRTH_TIMEOUT_S
        self._timers["birth"] = self._loop.call_later(birth_s, self._child.kill)
        # A session's process may be busy with the program's threads before it takes the job.
        if self._is_block:
            self._check_cpu()
        self._send()

    def end(self) -> None:
        """Stops watching. Safe to call more than once."""
        for timer in self._timers.values():
            timer.cancel()
        for fd in self._reading:
            self._loop.remove_reader(fd)
        self._reading.clear()
        if self._is_writing:
            self._loop.remove_writer(self._child.control.fileno())
            self._is_writing = False
        if not self.spoke.done():
            self.spoke.cancel()

    @property
    def has_started(self) -> bool:
        return self._start > 0

    @property
    def must_not_commit(self) -> bool:
        """A session block that broke a limit, memory included, is rolled back."""
        return self._verdict is not None or self._report().get("memory") is True

    def _send(self) -> None:
        try:
            sent = self._child.control.send(self._outbox)
        except BlockingIOError:
            sent = 0
        except OSError:  # the child is dead; its end says why
            sent = len(self._outbox)
        self._outbox = self._outbox[sent:]
        if bool(self._outbox) == self._is_writing:
            return
        self._is_writing = not self._is_writing
        if self._is_writing:
            self._loop.add_writer(self._child.control.fileno(), self._send)
        else:
            self._loop.remove_writer(self._child.control.fileno())

    def _read(self, fd: int) -> bytes | None:
        """A chunk, None if there is none now, empty at the end of the stream."""
        try:
            return os.read(fd, 1 << 16)
        except BlockingIOError:
            return None
        except OSError:
            return b""

    def _rest(self, fd: int, handler: Callable[[], None], size: int) -> None:
        """After many small reads, lets a pipe fill: a byte must not cost us more than the program."""
        self._tiny_reads += size < _TINY_BYTES
        if size >= _TINY_BYTES or self._tiny_reads <= _FREE_TINY_READS or fd not in self._reading:
            return
        self._loop.remove_reader(fd)
        self._timers[f"rest {fd}"] = self._loop.call_later(_REST_S, self._listen, fd, handler)

    def _listen(self, fd: int, handler: Callable[[], None]) -> None:
        if fd in self._reading:
            self._loop.add_reader(fd, handler)

    def _pump(self, fd: int, capture: Capture, handler: Callable[[], None]) -> None:
        chunk = self._read(fd)
        if chunk:
            self._rest(fd, handler, len(chunk))
            capture.feed(chunk)
            if self._stdout.total + self._stderr.total > self._flood_bytes:
                self.stop(Status.OUTPUT_LIMIT)
        elif chunk == b"" and fd in self._reading:
            self._loop.remove_reader(fd)
            self._reading.remove(fd)

    def _on_stdout(self) -> None:
        self._pump(self._child.stdout, self._stdout, self._on_stdout)

    def _on_stderr(self) -> None:
        self._pump(self._child.stderr, self._stderr, self._on_stderr)

    def _on_control(self) -> None:
        fd = self._child.control.fileno()
        chunk = self._read(fd)
        if chunk is None:
            return
        if not chunk:
            self._loop.remove_reader(fd)
            self._reading.remove(fd)
            return
        self._rest(fd, self._on_control, len(chunk))
        if not self.has_started:  # the first byte is child.STARTED
            self._started()
            chunk = chunk[1:]
        if len(self._words) + len(chunk) > self._report_bytes:
            return self.stop(Status.OUTPUT_LIMIT)
        self._words += chunk
        if self._words.endswith(b"\n") and not self.spoke.done():
            self.spoke.set_result(None)

    def _started(self) -> None:
        self._timers["birth"].cancel()
        self._start = time.monotonic()
        self._timers["wall"] = self._loop.call_later(
            self._limits.wall_ms / 1000, self.stop, Status.WALL_LIMIT
        )
        if not self._is_block:
            self._check_cpu()

    def _cpu_seconds(self) -> float:
        try:
            return time.clock_gettime(cpu_clock(self._child.pid))
        except OSError:  # ended
            return 0.0

    def _check_cpu(self) -> None:
        """Looks again when the limit may be reached at the earliest: if all threads run at once."""
        used = self._cpu_seconds() - self._cpu_start
        left = self._limits.cpu_ms / 1000 - used
        if left <= 0:
            return self.stop(Status.CPU_LIMIT)
        delay = max(0.002, left / min(self._limits.threads, _CORES))
        self._timers["cpu"] = self._loop.call_later(delay, self._check_cpu)

    def stop(self, verdict: Status) -> None:
        """Kills the run for a limit it broke."""
        if self._verdict is None:
            self._verdict = verdict
        self._child.kill()

    def outcome(self, end: Exit | None) -> Outcome:
        """The verdict; `end` is None for a session block whose process lives on in a session."""
        # 1. What is still in the pipes: the exit may be read before the last output. Bounded,
        #    for a session block's process may go on writing.
        for fd, capture in ((self._child.stdout, self._stdout), (self._child.stderr, self._stderr)):
            while chunk := self._read(fd):
                capture.feed(chunk)
                if capture.total > 2 * self._flood_bytes:
                    break
        while chunk := self._read(self._child.control.fileno()):
            if not self.has_started:
                self._started()
                chunk = chunk[1:]
            if len(self._words) > self._report_bytes:
                break
            self._words += chunk
        self.end()
        # 2. No program ran: the child says on stderr why. The server is to blame, unless files were.
        if not self.has_started:
            if end is not None and end.code == exits.FILES_NOT_WRITTEN:
                raise FilesNotWritten(self._stderr.text()[-300:])
            raise BrokenChild(self._stderr.text()[-2000:] or f"child ended early: {end}")
        # 3. The kernel's numbers where there are some, a session block's word where it lives on.
        report = self._report()
        # A started millisecond counts: no program runs in none.
        wall_ms = math.ceil((time.monotonic() - self._start) * 1000)
        if end is None:
            used = self._cpu_seconds() - self._cpu_start
            code, sig, peak = _exit_code(report), 0, 0
        else:
            used = end.cpu_ms / 1000 - self._cpu_start
            code, sig, peak = end.code, end.signal, end.peak_bytes
        return Outcome(
            status=self._judge(code, sig, report, used),
            stdout=self._stdout,
            stderr=self._stderr,
            report=report,
            exit_code=code,
            signal=sig,
            cpu_ms=max(0, round(used * 1000)),
            wall_ms=wall_ms,
            peak_bytes=peak,
        )

    def _judge(self, code: int, sig: int, report: dict, used_s: float) -> Status:
        """Our own verdict over the kernel's exit status, that over the program's words."""
        # 1. A flood counts even where the program ended before our signal reached it.
        if self._verdict is Status.OUTPUT_LIMIT:
            return Status.OUTPUT_LIMIT
        # 2. Killed: by us for a limit; for a session block's rollback; by RLIMIT_CPU behind our clock;
        #    or by something else (a crash, the kernel out of memory).
        if sig:
            if self._verdict is not None:
                return self._verdict
            if report.get("memory") is True:
                return Status.MEMORY_LIMIT
            is_over = used_s * 1000 >= self._limits.cpu_ms
            return Status.CPU_LIMIT if is_over else Status.KILLED
        # 3. It ended by itself, even if a clock ran out at that moment.
        if code == 0:
            return Status.OK
        return Status.MEMORY_LIMIT if report.get("memory") is True else Status.ERROR

    def _report(self) -> dict:
        """The child's last line, checked for shape only."""
        with contextlib.suppress(ValueError, RecursionError):
            report = json.loads(self._words.rstrip().rpartition(b"\n")[2])
            return report if isinstance(report, dict) else {}
        return {}


def _exit_code(report: dict) -> int:
    """A session block's own word for how it ended: 1 for anything that is no exit code."""
    code = report.get("exit", 1)
    return code if type(code) is int and 0 <= code <= 255 else 1


async def run_once(child: Child, job: dict, limits: LimitSet, flood_bytes: int) -> Outcome:
    """Runs a stateless job to its end; cancelling this kills it."""
    run = Run(child, limits, flood_bytes)
    try:
        run.begin(job)
        longest_s = _BIRTH_TIMEOUT_S + limits.wall_ms / 1000 + _GRACE_S
        await asyncio.wait({child.ended}, timeout=longest_s)
        if not child.ended.done():
            raise ForkServerGone(f"no news of a run's end in {longest_s:.0f} s")
        return run.outcome(child.ended.result())
    finally:
        run.end()
        child.close()
