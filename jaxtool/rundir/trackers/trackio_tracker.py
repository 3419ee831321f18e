"""A run in Trackio: a local database (TRACKIO_DIR), or a Space or server where its own variables say so.

Trackio continues a run by its name, so a run without a name of the user's gets one that no other has.
"""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.trackers.base import COLUMNS, Opening, Row


class TrackioTracker:
    """Continues the run of its name."""

    def __init__(self, opening: Opening):
        self._trackio: Any = importlib.import_module("trackio")
        self._run: Any = self._trackio.init(
            project=opening.spec.project,
            name=opening.name,
            config=dict(opening.config) or None,
            resume="allow",
            embed=False,
            auto_log_cpu=False,
        )
        self.run_id = str(self._run.id)
        self.place = f"run {opening.name}: trackio show --project {opening.spec.project}"

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_table(self, step: int, rows: Sequence[Row]) -> None:
        table = self._trackio.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({"trajectories": table}, step=step)

    def log_page(self, page: Path) -> None:
        name = f"report-{self.run_id}"
        self._run.log_artifact(str(page), name=name, type="report")

    def close(self, is_finished: bool) -> None:
        del is_finished  # Trackio keeps no such word
        self._run.finish()
