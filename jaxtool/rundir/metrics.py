"""Writes the metrics of a run: one JSON row per step, and TensorBoard events.

A row is {"step": int, "time_s": float, "<area>/<name_unit>": float or null, ...}. A killed and
resumed run leaves each step once. Knows nothing of what the metrics mean, and draws nothing
(report.py does).
"""

import math
import pathlib
import re
import time
from collections.abc import Mapping, Sequence
from typing import Any, SupportsFloat

from tensorboardX import SummaryWriter, summary

from jaxtool.rundir import jsonl

METRICS_NAME = "metrics.jsonl"
TENSORBOARD_FOLDER = "tensorboard"
NON_FINITE_COUNT = "metrics/non_finite_count"  # of the row: values that were nan or infinite
# The metrics by which TensorBoard's table compares runs.
_COMPARED = (
    *("reward/mean", "reward/accuracy_fraction", "tools/calls_per_answer"),
    *("validation/accuracy_fraction", "sft/loss_nats"),
)

# area/name_unit, or area/name_unit/part for a figure of one level or data set.
_NAME = re.compile(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*(/[A-Za-z0-9_][A-Za-z0-9_.+-]*)?")


def check_metric_name(name: str) -> None:
    """Raises ValueError unless the name is `area/name_unit` or `area/name_unit/part`."""
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"metric name {name!r} is malformed; write area/name_unit or area/name_unit/part, "
            "in lower case"
        )


def over_hosts(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """One row for all hosts: sums of `..._total`, the longest of `timing/`, means of the others."""

    def joined(name: str, values: list[float]) -> float:
        if name.endswith("_total"):
            return sum(values)
        return max(values) if name.startswith("timing/") else sum(values) / len(values)

    return {name: joined(name, [part[name] for part in parts]) for name in parts[0]}


class MetricsWriter(jsonl.Closes):
    """Appends one row per step to WORKDIR/metrics.jsonl and to WORKDIR/tensorboard.

    Args:
      workdir: made if it is not there.
      resume_step: the last step that the resumed run keeps; rows of later steps are removed.
        None starts from nothing and removes all rows.
    """

    def __init__(self, workdir: str | pathlib.Path, resume_step: int | None = None):
        path = pathlib.Path(workdir) / METRICS_NAME
        events = pathlib.Path(workdir) / TENSORBOARD_FOLDER
        self._file = jsonl.open_for_append(path, resume_step)
        last = [{"step": -1, "time_s": 0.0}, *jsonl.read_rows(path)][-1]
        self._last_step = int(last["step"])
        self._start_s = time.monotonic() - float(last["time_s"])
        if resume_step is None and events.exists():
            for stale in events.glob("events.out.tfevents.*"):
                stale.unlink()
        self._tensorboard = SummaryWriter(
            logdir=str(events),
            # TensorBoard hides what earlier files say of these steps.
            purge_step=None if resume_step is None else resume_step + 1,
            # tensorboardX names files by the second and would overwrite that of a quick resume.
            filename_suffix=f".{time.time_ns()}",
            flush_secs=10,
        )

    def sync(self) -> None:
        """See `jsonl.sync`."""
        jsonl.sync(self._file)

    def write(self, step: int, metrics: Mapping[str, SupportsFloat]) -> None:
        """Writes the row of `step`; values are numbers or arrays without axes.

        A value that is not finite becomes null and is counted in `metrics/non_finite_count`.

        Raises:
          ValueError: on a malformed name, or on a step that is not after the last one.
        """
        if step <= self._last_step:
            raise ValueError(f"{step=} must be after the last step {self._last_step}")
        row: dict[str, Any] = {"step": step, "time_s": round(time.monotonic() - self._start_s, 3)}
        for name, value in metrics.items():
            check_metric_name(name)
            number = float(value)
            row[name] = number if math.isfinite(number) else None
        row[NON_FINITE_COUNT] = sum(value is None for value in row.values())
        jsonl.append_row(self._file, row)
        self._last_step = step
        for name, value in row.items():
            if "/" in name and value is not None:
                self._tensorboard.add_scalar(name, value, step)

    def write_hparams(self, values: Mapping[str, str | float | bool]) -> None:
        """Settings for TensorBoard's table of runs, beside the metrics that it can compare them by."""
        summaries = summary.hparams(dict(values), dict.fromkeys(_COMPARED, 0.0))
        writer = self._tensorboard.file_writer
        if writer is not None:
            for one in summaries[:2]:  # the third says that the run has ended
                writer.add_summary(one)

    def write_texts(self, step: int, texts: Sequence[str]) -> None:
        """Markdown of a step for TensorBoard, a numbered tag each."""
        for number, text in enumerate(texts):
            self._tensorboard.add_text(f"trajectories/{number}", text, step)

    def close(self) -> None:
        self._file.close()
        self._tensorboard.close()


def finite(metrics: Mapping[str, SupportsFloat]) -> dict[str, float]:
    """The values that are finite, as floats."""
    values = {name: float(value) for name, value in metrics.items()}
    return {name: value for name, value in values.items() if math.isfinite(value)}


def read_metrics(path: str | pathlib.Path) -> list[dict[str, float]]:
    """Rows of a metrics file by step; null is nan. Also reads the file of a running run."""
    return [
        {name: math.nan if value is None else value for name, value in row.items()}
        for row in jsonl.read_rows(path)
    ]
