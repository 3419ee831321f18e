"""WORKDIR/run.json: whose a run directory is, and each start of its run.

Written whole, in one step. Knows no jax, so that `experiments.runs` reads a hundred runs at once.
Not covered: who may write it (`run_start`).
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from jaxtool.config.settings import Setting
from jaxtool.core.files import write_text

RECORD = "run.json"
LOCK = "run.lock"  # held by the process that runs
# "checking" and "running" are those of a process that lives, or that died without a word.
Status = Literal["checking", "running", "finished", "stopped", "failed", "failed checks"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Start:
    """One start of a command in the directory."""

    started: str  # UTC, as ISO 8601
    status: Status
    command: str
    directory: str  # in which the command was given
    commit: str
    files: tuple[str, ...] = ()  # gin files, where the command names them
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    machine: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    devices: Mapping[str, str | int] = dataclasses.field(default_factory=dict)
    steps: int = 0  # that it was to end with
    from_step: int | None = None  # None: it did not come so far
    changed: tuple[str, ...] = ()  # settings that are others than before it
    ended: str = ""
    error: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What the file holds."""

    target: str = ""  # class of the configuration; empty until a start has passed its checks
    settings: Mapping[str, Setting] = dataclasses.field(default_factory=dict)  # by path
    steps: int = 0
    finished_step: int | None = None  # of the saved policy
    starts: tuple[Start, ...] = ()

    def write(self, workdir: Path) -> None:
        values = dataclasses.asdict(self)
        write_text(workdir / RECORD, json.dumps(values, indent=1))

    def with_start(self, start: Start) -> "RunRecord":
        return dataclasses.replace(self, starts=(*self.starts, start))

    def with_last(self, **fields: Any) -> "RunRecord":
        """The same with other fields of its last start."""
        last = dataclasses.replace(self.starts[-1], **fields)
        return dataclasses.replace(self, starts=(*self.starts[:-1], last))


def read_record(workdir: Path) -> RunRecord | None:
    """The record of a directory, None without one.

    Raises:
      ValueError: the file is damaged or of another version, in one line.
    """
    path = workdir / RECORD
    if not path.is_file():
        return None
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        settings = {name: Setting(**one) for name, one in values["settings"].items()}
        starts = tuple(Start(**_tuples(one)) for one in values["starts"])
        return RunRecord(**{**values, "settings": settings, "starts": starts})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} cannot be read ({type(error).__name__}: {error}): it is damaged or of another "
            "version; choose another --workdir"
        ) from error


def _tuples(start: dict[str, Any]) -> dict[str, Any]:
    return start | {name: tuple(start[name]) for name in ("files", "changed")}
