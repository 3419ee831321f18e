"""Runs in processes of their own that are killed, told to stop, or given a bad disk; what they leave is compared.

A child is forked from a server that has imported everything, so it costs the compilation of its programs alone.
"""

import asyncio
import dataclasses
import hashlib
import json
import multiprocessing
import os
import random
import signal
import threading
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

PRELOAD = ["helpers.drills", "helpers.drill_runs"]
_LIMIT_S = 240.0  # of a child: a drill that hangs is a failure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kill:
    """A SIGKILL from a thread, a random share of a phase's usual time after the phase begins."""

    phase: str
    occurrence: int  # of the phase in the process, from 0
    delay_s: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """What is done to a child; the default is nothing."""

    kill: Kill | None = None
    sigterm_at_call: int | None = (
        None  # SIGTERM to itself at this call of the tool, which then hangs
    )
    interrupts_at_call: int | None = None  # two SIGINTs likewise
    stop_file_at_call: int | None = None  # touches WORKDIR/stop likewise
    hangs_in_update: int | None = None  # step whose update blocks in compiled code, after SIGTERM
    row_write_s: float = 0.0  # seconds that each row of finished answers takes to write
    checkpoint_write_s: float = 0.0  # seconds that each checkpoint takes to write
    no_space_after: int | None = None  # rows of finished answers that fit on the disk
    grace_s: float = 25.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spec:
    """One child."""

    kind: str  # of `drill_runs.KINDS`
    folder: Path  # for configurations; the same for all children that are compared
    workdir: Path
    fault: Fault = dataclasses.field(default_factory=Fault)
    seed: int = 1
    fields: dict[str, Any] = dataclasses.field(default_factory=dict)  # of the run's schedule

    @property
    def log(self) -> Path:
        return self.workdir.with_name(f"{self.workdir.name}.log")

    @property
    def notes(self) -> Path:
        """What the child writes down about its fault and its phases, a JSON object a line."""
        return self.workdir.with_name(f"{self.workdir.name}.notes")

    def note(self, **values: Any) -> None:
        with open(self.notes, "a", encoding="utf-8") as file:
            file.write(json.dumps({"at": time.time(), **values}) + "\n")

    def read_notes(self) -> list[dict[str, Any]]:
        if not self.notes.exists():
            return []
        return [json.loads(line) for line in self.notes.read_text().splitlines()]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """How a child ended."""

    code: int  # -9: SIGKILL
    said: str  # all that it printed
    ended_at: float  # on time.time()


def run_child(spec: Spec) -> Ended:
    """Runs a child to its end, which must come within `_LIMIT_S`."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    process: BaseProcess = context.Process(target=_child, args=(spec,))
    begins = spec.log.stat().st_size if spec.log.exists() else 0
    process.start()
    process.join(_LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        raise AssertionError(f"hangs after {_LIMIT_S:g} s: {spec}\n{spec.log.read_text()[-3000:]}")
    ended_at = time.time()
    assert process.exitcode is not None
    said = spec.log.read_text()[begins:]
    return Ended(code=process.exitcode, said=said, ended_at=ended_at)


def _child(spec: Spec) -> None:
    from helpers import drill_runs

    signal.signal(signal.SIGINT, signal.default_int_handler)
    with open(spec.log, "ab") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    drill_runs.run(spec)


class Phases:
    """Notes how long each phase of an unbroken child takes, or kills a child within one."""

    def __init__(self, spec: Spec):
        self._spec, self._seen = spec, {}

    def begin(self, phase: str) -> float:
        kill, count = self._spec.fault.kill, self._seen.get(phase, 0)
        self._seen[phase] = count + 1
        if kill is not None and (kill.phase, kill.occurrence) == (phase, count):
            threading.Thread(target=self._kill, args=(kill.delay_s,), daemon=True).start()
        return time.monotonic()

    def end(self, phase: str, began: float) -> None:
        if self._spec.fault.kill is None:
            self._spec.note(phase=phase, seconds=time.monotonic() - began)

    def _kill(self, delay_s: float) -> None:
        time.sleep(delay_s)
        self._spec.note(killed=True)
        os.kill(os.getpid(), signal.SIGKILL)


def durations(spec: Spec) -> dict[str, list[float]]:
    """Seconds of each phase of an unbroken child, in their order."""
    found: dict[str, list[float]] = {}
    for note in spec.read_notes():
        if "phase" in note:
            found.setdefault(note["phase"], []).append(note["seconds"])
    return found


def random_kill(phase: str, seed: int, number: int, usual: dict[str, list[float]]) -> Kill:
    """A point of a phase, drawn from (phase, seed, number)."""
    draw = random.Random(f"{phase}/{seed}/{number}")
    occurrence = draw.randrange(len(usual[phase]))
    return Kill(
        phase=phase, occurrence=occurrence, delay_s=draw.random() * usual[phase][occurrence]
    )


def fingerprints(workdir: Path) -> dict[str, str]:
    """Digests of everything that a run leaves and that does not depend on the clock."""
    from helpers import drill_runs

    return {
        name: hashlib.blake2b(repr(value).encode(), digest_size=8).hexdigest()
        for name, value in drill_runs.left_by(workdir).items()
    }


async def hang() -> None:
    """A call that never comes back by itself."""
    await asyncio.sleep(3600)
