"""A run in Weights & Biases. `WANDB_MODE=offline` keeps it in WORKDIR/wandb, for `wandb sync`."""

import importlib
import os
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.trackers.base import COLUMNS, Opening, Row

_FINISH_S = 50.0  # of uploads after the last row; what is not uploaded stays on the disk


class WandbTracker:
    """Continues the run of its id."""

    def __init__(self, opening: Opening):
        self._wandb: Any = importlib.import_module("wandb")
        self.run_id = opening.run_id or uuid.uuid4().hex[:8]
        settings = self._wandb.Settings(
            console="off",
            silent=True,
            finish_timeout=_FINISH_S,
            # Command and commit are in our own record, without secrets.
            x_disable_meta=True,
            x_save_requirements=False,
            disable_git=True,
        )
        self._run: Any = self._wandb.init(
            project=opening.spec.project,
            name=opening.name,
            id=self.run_id,
            resume="allow",
            config=dict(opening.config) or None,
            allow_val_change=True,
            dir=os.environ.get("WANDB_DIR") or str(opening.workdir),
            reinit="create_new",
            settings=settings,
        )
        folder = os.path.dirname(self._run.dir)  # of its `files`
        self.place = f"offline: wandb sync {folder}" if self._run.offline else self._run.url

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def log_table(self, step: int, rows: Sequence[Row]) -> None:
        table = self._wandb.Table(columns=list(COLUMNS), data=[list(row) for row in rows])
        self._run.log({"trajectories": table}, step=step)

    def log_page(self, page: Path) -> None:
        """As an artifact, which takes no step: a run that goes on later still has its next one."""
        artifact = self._wandb.Artifact(f"report-{self.run_id}", type="report")
        artifact.add_file(str(page), name=page.name)
        self._run.log_artifact(artifact)

    def close(self, is_finished: bool) -> None:
        self._run.finish(exit_code=0 if is_finished else 1)
