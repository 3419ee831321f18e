"""WORKDIR/rollouts: the finished answers of the steps since the last whole checkpoint.

A step may sample for an hour. What it has finished is written while it goes on, by a thread, so that a process that is
killed or told to stop loses only the answers that were still growing. A resumed run reads the finished ones back, with
their tokens, log-probs and versions, and draws the others from their keys.

Files are `STEP.PROCESS.NUMBER.rows`, one writer each; every process reads those of all, so another number of hosts may
resume. A checkpoint that is whole makes the files of the steps before it needless. Not covered: answers that the
infrastructure lost, and validations: both are asked again.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from jaxtool.core.files import one_line
from jaxtool.core.types import Problem, Trajectory
from jaxtool.rundir import trajectory_rows
from jaxtool.rundir.trajectory_rows import DamagedRow, Place

FOLDER = "rollouts"
_SUFFIX = ".rows"
_MAX_FILE_BYTES = 64 << 20  # a mounted bucket sends a file again from its start at each sync
_SYNC_EVERY_S = 30.0
_CLOSE_S = 10.0  # for what waits, where nobody is in a hurry

Key = tuple[tuple[str | int, ...], str, int]  # random stream, problem id, sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReadBack:
    """An answer that an earlier process finished."""

    trajectory: Trajectory
    extra: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fingerprint:
    """Of the settings of a run: rows of another run, or of another learning rate, are not read back."""

    run: str  # of what may not change
    rates: str  # of what changes the parameters of later steps


class RolloutJournal:
    """The rows of one process; a context manager: leaving waits a bounded time for what is not written.

    Args:
      process: number of this process.
      start: the step that the run resumes from.
      fingerprint: of this start.
      opens: opens a file for writing; tests put a slow or full disk here.
    """

    def __init__(
        self,
        workdir: Path,
        *,
        process: int,
        start: int,
        fingerprint: Fingerprint,
        opens: Callable[[Path], BinaryIO] | None = None,
    ):
        self._folder, self._process = workdir / FOLDER, process
        self._fingerprint = fingerprint
        self._opens = opens or _create
        self._places, self.num_foreign = _indexed(self._folder, start, fingerprint)
        # A step and what makes its row; without a row: what was written goes to the disk.
        self._queue: queue.SimpleQueue[tuple[int, Callable[[], bytes] | None] | None] = (
            queue.SimpleQueue()
        )
        self._file: BinaryIO | None = None
        self._step = -1  # of the open file
        self._failed_step = -1  # nothing more is written of it
        self._synced_s = time.monotonic()
        self._pending = 0  # items of the queue that are not done
        self._quiet = threading.Condition()
        self._read_back = 0
        self._thread = threading.Thread(target=self._write_all, name="rollout journal", daemon=True)

    def __enter__(self) -> Self:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.flush(_CLOSE_S)
        self._queue.put(None)
        self._thread.join(_CLOSE_S)

    @property
    def num_known(self) -> int:
        """Answers that can be read back."""
        return len(self._places)

    def take_read_back(self) -> int:
        """Answers that were read back since the last time."""
        taken, self._read_back = self._read_back, 0
        return taken

    def find(
        self,
        stream: Sequence[str | int],
        problem: Problem,
        sample: int,
        prompt: Sequence[int],
    ) -> ReadBack | None:
        """An answer that is there and whole, None otherwise; each is given once.

        Args:
          prompt: [P] ids that it must begin with.
        """
        found = self._places.pop((tuple(stream), problem.problem_id, sample), None)
        if found is None:
            return None
        path, place = found
        try:
            with open(path, "rb") as file:
                file.seek(place.start)
                frame = file.read(place.length)
            trajectory, extra = trajectory_rows.from_bytes(frame, problem)
        except (OSError, DamagedRow, KeyError, TypeError, ValueError) as error:
            _warn(f"{path.name}: the answer to {problem.problem_id} is drawn again: {error}")
            return None
        if trajectory.ids[: len(prompt)].tolist() != list(prompt):
            return None  # of another prompt
        self._read_back += 1
        return ReadBack(trajectory=trajectory, extra=extra)

    def add(
        self, stream: Sequence[str | int], trajectory: Trajectory, extra: Mapping[str, Any]
    ) -> None:
        """Writes a finished answer of a training step, soon; returns at once."""
        if trajectory.is_masked or not is_training(stream):
            return
        head = {
            "stream": list(stream),
            "problem_id": trajectory.problem.problem_id,
            "sample": trajectory.sample,
            **dataclasses.asdict(self._fingerprint),
        }
        with self._quiet:
            self._pending += 1
        self._queue.put((int(stream[1]), lambda: trajectory_rows.to_bytes(head, trajectory, extra)))

    def flush(self, timeout_s: float) -> bool:
        """Waits until what was added is on the disk; whether it is."""
        with self._quiet:
            self._pending += 1
        self._queue.put((self._step, None))
        with self._quiet:
            return self._quiet.wait_for(lambda: not self._pending, timeout_s)

    def forget_before(self, step: int) -> None:
        """Removes the rows of earlier steps, of all processes: a whole checkpoint has what they taught."""
        for path in _files(self._folder):
            if _step_of(path) < step:
                path.unlink(missing_ok=True)
        self._places = {key: at for key, at in self._places.items() if int(key[0][1]) >= step}

    def _write_all(self) -> None:
        while (item := self._queue.get()) is not None:
            step, row = item
            try:
                if row is not None:
                    self._write(step, row())
                if row is None or time.monotonic() - self._synced_s > _SYNC_EVERY_S:
                    self._sync()
            except (OSError, ValueError) as error:
                self._give_up(step, error)
            with self._quiet:
                self._pending -= 1
                self._quiet.notify_all()
        with contextlib.suppress(OSError):
            self._close_file()

    def _write(self, step: int, frame: bytes) -> None:
        if step == self._failed_step:
            return
        if self._file is None or step != self._step or self._file.tell() > _MAX_FILE_BYTES:
            self._close_file()
            self._file, self._step = self._opens(self._new_path(step)), step
        self._file.write(frame)
        self._file.flush()

    def _sync(self) -> None:
        self._synced_s = time.monotonic()
        if self._file is not None:
            self._file.flush()
            os.fsync(self._file.fileno())

    def _give_up(self, step: int, error: Exception) -> None:
        """A full disk ends no step: the answers are in memory. The next step tries again."""
        if self._failed_step != step:
            _warn(
                f"{self._folder} cannot be written ({one_line(error, 120)}): a resume draws the other "
                f"answers of step {step} again"
            )
        self._failed_step, file, self._file = step, self._file, None
        if file is not None:
            with contextlib.suppress(OSError):
                file.close()

    def _close_file(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            file.flush()
            os.fsync(file.fileno())
            file.close()

    def _new_path(self, step: int) -> Path:
        number = 0
        while (path := self._folder / f"{step}.{self._process}.{number}{_SUFFIX}").exists():
            number += 1
        return path


def is_training(stream: Sequence[str | int]) -> bool:
    """Whether a random stream is that of a training step: ("train", step, ...)."""
    return len(stream) > 1 and stream[0] == "train"


def _create(path: Path) -> BinaryIO:
    return open(path, "xb")


def _indexed(
    folder: Path, start: int, fingerprint: Fingerprint
) -> tuple[dict[Key, tuple[Path, Place]], int]:
    """Where the answers of the steps from `start` on lie, and how many are of another run or rate."""
    places: dict[Key, tuple[Path, Place]] = {}
    foreign = 0
    for path in _files(folder):
        if _step_of(path) < start:
            continue
        with open(path, "rb") as file:
            for head, place in trajectory_rows.scan(file):
                try:
                    stream = tuple(head["stream"])
                    key = stream, str(head["problem_id"]), int(head["sample"])
                    is_own = head["run"] == fingerprint.run
                    # At the step of the checkpoint itself the parameters are those that sampled the row.
                    is_own &= head["rates"] == fingerprint.rates or int(stream[1]) == start
                except (KeyError, TypeError, ValueError, IndexError):
                    break
                if is_own:
                    places[key] = path, place
                else:
                    foreign += 1
    return places, foreign


def _files(folder: Path) -> list[Path]:
    found = (path for path in folder.glob(f"*{_SUFFIX}") if _step_of(path) >= 0)
    return sorted(found, key=lambda path: path.name)


def _step_of(path: Path) -> int:
    first = path.name.partition(".")[0]
    return int(first) if first.isdecimal() else -1


def digest(values: Mapping[str, str]) -> str:
    """A short name of settings."""
    text = json.dumps(sorted(values.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _warn(text: str) -> None:
    print(f"warning: {text}", file=sys.stderr, flush=True)
