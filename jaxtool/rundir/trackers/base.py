"""What a tracker does, and what a run directory remembers of it. Knows none of the three packages."""

import dataclasses
import json
import math
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from jaxtool.config.settings import Setting
from jaxtool.core.files import write_text
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.rundir.trajectory_log import TrajectoryView

MEMORY_NAME = "trackers.json"
MAX_ROWS = 8  # of a step's table
_HEAD, _TAIL = 3000, 1000  # characters of a long text that a table keeps
COLUMNS = (
    *("step", "problem_id", "question", "response", "reference_answer", "reward", "is_correct"),
    *("calls", "tokens", "finish_reason"),
)
Row = tuple[str | float | int | bool | None, ...]  # by COLUMNS


class Tracker(Protocol):
    """One run of a tracker, open. Its methods may block and raise: `guarded` calls them in a thread."""

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None: ...

    def log_table(self, step: int, rows: Sequence[Row]) -> None: ...

    def log_page(self, page: Path) -> None:
        """Keeps an HTML file with the run; one that is there becomes an earlier version of it."""
        ...

    def close(self, is_finished: bool) -> None: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening:
    """What a tracker is opened with."""

    spec: TrackerSpec
    name: str  # of the run
    workdir: Path
    config: Mapping[str, str | float | bool]  # settings by path, numbers as numbers
    run_id: str  # of the tracker's run that this one continues; empty: a new one


class Memory:
    """WORKDIR/trackers.json: of each tracker the id of its run and the last step that was given to it."""

    def __init__(self, workdir: Path, *, is_new: bool):
        """With `is_new` what an earlier run left is forgotten. A damaged file is the same as none."""
        self._path = workdir / MEMORY_NAME
        self._lock = threading.Lock()
        self._known: dict[str, dict[str, Any]] = {}
        if not is_new and self._path.is_file():
            try:
                self._known = dict(json.loads(self._path.read_text(encoding="utf-8")))
            except ValueError:
                self._known = {}

    def run_id(self, spec: TrackerSpec) -> str:
        return str(self._known.get(str(spec), {}).get("id", ""))

    def name(self, spec: TrackerSpec) -> str:
        return str(self._known.get(str(spec), {}).get("name", ""))

    def last_step(self, spec: TrackerSpec) -> int:
        return int(self._known.get(str(spec), {}).get("last_step", -1))

    def keep(self, spec: TrackerSpec, **values: str | int) -> None:
        """Raises OSError if the file cannot be written."""
        with self._lock:
            self._known.setdefault(str(spec), {}).update(values)
            write_text(self._path, json.dumps(self._known, indent=1))


def config_of(settings: Mapping[str, Setting]) -> dict[str, str | float | bool]:
    """Settings as trackers show them: numbers and truth values as such, the rest as text."""
    return {path: _value(one.value) for path, one in settings.items()}


def rows_of(views: Sequence[TrajectoryView]) -> list[Row]:
    """A bounded sample of a step's trajectories, long texts cut in their middle."""
    return [
        (
            view.step,
            view.problem_id,
            shortened(view.question),
            shortened("".join(t.text for t in view.tokens if t.origin != "prompt")),
            shortened(view.reference_answer),
            view.reward if math.isfinite(view.reward) else None,
            view.is_correct,
            len(view.tool_calls),
            len(view.tokens),
            view.finish_reason,
        )
        for view in views[:MAX_ROWS]
    ]


def shortened(text: str) -> str:
    """`text`, or its head and its tail with the number of characters between them."""
    if len(text) <= _HEAD + _TAIL:
        return text
    return f"{text[:_HEAD]}\n[... {len(text) - _HEAD - _TAIL} characters ...]\n{text[-_TAIL:]}"


def _value(text: str) -> str | float | bool:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] == "'" else text
