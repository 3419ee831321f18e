"""What the files of runs say, for people who have many: a line a run, one run whole, two runs compared.

Reads only, also while a run is going on, and without jax. Not covered: how it is shown (`experiments.runs`).
"""

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtool.config.settings import Change, Setting, changes
from jaxtool.core.locks import holder
from jaxtool.rundir.answer_files import ANSWERS, SETTINGS
from jaxtool.rundir.run_record import LOCK, RECORD, RunRecord, Start, read_record

_METRICS = "metrics.jsonl"
_POLICY = "model_config.json"  # in the directory of every saved policy
_TAIL_BYTES = 1 << 18  # of metrics.jsonl, enough for its last row
State = Literal["running", "finished", "stopped", "failed", "failed checks"]
# The last metrics of a line of `list`, those that there are, by the names of its columns.
LAST_METRICS = {
    "reward": "reward/mean",
    "accuracy": "reward/accuracy_fraction",
    "calls": "tools/calls_per_answer",
    "validation": "validation/accuracy_fraction",
    "loss": "sft/loss_nats",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunView:
    """One run directory."""

    path: Path
    record: RunRecord
    state: State
    last_row: Mapping[str, Any]  # of metrics.jsonl; empty before the first
    age_s: float  # since something was last written

    @property
    def start(self) -> Start | None:
        """Its last one."""
        return self.record.starts[-1] if self.record.starts else None

    @property
    def recipe(self) -> str:
        """Names of its gin files, or of the class that it is configured by."""
        files = self.start.files if self.start is not None else ()
        return "+".join(Path(file).stem for file in files) or self.record.target.rpartition(".")[2]

    @property
    def step(self) -> int:
        """Steps made, as far as the files say; of an evaluation its chunks."""
        by_rows = int(self.last_row["step"]) + 1 if self.last_row else 0
        return max(by_rows, self.record.finished_step or 0, len(_chunks(self.path)))

    @property
    def steps(self) -> int:
        return self.record.steps or (self.start.steps if self.start is not None else 0)

    @property
    def metrics(self) -> dict[str, float]:
        found = {short: self.last_row.get(name) for short, name in LAST_METRICS.items()}
        return {short: value for short, value in found.items() if value is not None}


def find_runs(root: Path) -> list[RunView]:
    """The run directories at and under `root`, by path; inside a run nothing is looked for.

    Raises:
      FileNotFoundError: no such directory.
      ValueError: a record that cannot be read, naming the file.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root} is no directory: give one that holds runs, such as runs")
    return [read_run(path) for path in sorted(_run_dirs(root))]


def read_run(path: Path) -> RunView:
    """One run directory.

    Raises:
      FileNotFoundError: no run there.
      ValueError: its record cannot be read, naming the file.
    """
    if not _is_run(path):
        raise FileNotFoundError(f"{path} is no run: neither {RECORD} nor {_METRICS} is in it")
    record = read_record(path) or RunRecord()
    written = [path / name for name in (RECORD, _METRICS, "trajectories.jsonl")]
    written += {chunk.parent for chunk in _chunks(path)}
    newest = max(file.stat().st_mtime for file in written if file.exists())
    return RunView(
        path=path,
        record=record,
        state=_state(path, record),
        last_row=_last_row(path / _METRICS),
        age_s=max(0.0, time.time() - newest),
    )


def checkpoints_of(path: Path) -> list[int]:
    """Steps of the checkpoints that a run keeps."""
    names = [folder.name for folder in (path / "checkpoints").glob("[0-9]*")]
    return sorted(int(name) for name in names if name.isdecimal())


def policies_of(path: Path) -> list[str]:
    """Policies that a run keeps, as paths inside it."""
    found = [file.parent for depth in ("*", "*/*") for file in path.glob(f"{depth}/{_POLICY}")]
    return sorted(str(folder.relative_to(path)) for folder in found)


def differences(one: RunView, other: RunView) -> dict[str, list[Change]]:
    """Where two runs differ: "settings", and "versions" with commit, devices and environment."""
    return {
        "settings": changes(one.record.settings, other.record.settings),
        "versions": changes(_surroundings(one.start), _surroundings(other.start)),
    }


def _surroundings(start: Start | None) -> dict[str, Setting]:
    if start is None:
        return {}
    parts: dict[str, Mapping[str, str | int]] = {
        "": {"commit": start.commit} | dict(start.versions),
        "device ": start.devices,
        "machine ": start.machine,
        "environment ": start.environment,
    }
    return {
        f"{part}{name}": Setting(name=f"{part}{name}", value=str(value))
        for part, values in parts.items()
        for name, value in values.items()
    }


def _is_run(path: Path) -> bool:
    return (path / RECORD).is_file() or (path / _METRICS).is_file()


def _run_dirs(root: Path) -> Iterator[Path]:
    for folder, inner, _ in os.walk(root):
        if _is_run(Path(folder)):
            inner.clear()
            yield Path(folder)
        inner[:] = [name for name in inner if not name.startswith(".")]


def _state(path: Path, record: RunRecord) -> State:
    if holder(path / LOCK) is not None:
        return "running"
    if (path / SETTINGS).is_file() and record.steps:  # an evaluation
        return "finished" if record.finished_step == record.steps else _stopped(record)
    has_policy = (path / "policy" / _POLICY).is_file()
    if not record.settings and (path / RECORD).is_file():
        return "failed checks"
    if has_policy and record.finished_step in (None, record.steps):
        return "finished"
    return _stopped(record)


def _stopped(record: RunRecord) -> State:
    return "failed" if record.starts and record.starts[-1].status == "failed" else "stopped"


def _chunks(path: Path) -> list[Path]:
    """Files of answers of an evaluation; none of other runs."""
    return list((path / ANSWERS).glob("*/*/[0-9]*.parquet"))


def _last_row(path: Path) -> dict[str, Any]:
    """The last whole row of a file of rows; empty without one."""
    if not path.is_file():
        return {}
    with open(path, "rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    for line in reversed(lines):
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            return row
    return {}
