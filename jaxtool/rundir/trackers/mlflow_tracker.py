"""A run in MLflow, where MLFLOW_TRACKING_URI says. The package `mlflow-skinny` is enough for a server.

A table is a JSON file of the run in the form of MLflow's own tables, one a step.
"""

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtool.rundir.trackers.base import COLUMNS, Opening, Row

_MAX_PARAMS = 100  # of one request
_MAX_CHARS = 500  # of a parameter's value
_MAX_TABLES = 20  # that the tag names which MLflow's pages read
_TABLES_TAG = "mlflow.loggedArtifacts"


class MlflowTracker:
    """Continues the run of its id."""

    def __init__(self, opening: Opening):
        mlflow: Any = importlib.import_module("mlflow")
        self._entities: Any = importlib.import_module("mlflow.entities")
        self._client: Any = mlflow.MlflowClient()
        self._tables: list[str] = []
        self.run_id = opening.run_id
        if self.run_id:
            self._client.update_run(self.run_id, status="RUNNING")
        else:
            experiment = _experiment(self._client, opening.spec.project)
            run = self._client.create_run(experiment, run_name=opening.name)
            self.run_id = run.info.run_id
            self._log_params(opening.config)
        self.place = f"run {self.run_id} at {mlflow.get_tracking_uri()}"

    def log_metrics(self, step: int, values: Mapping[str, float]) -> None:
        now_ms = int(time.time() * 1000)
        metrics = [self._entities.Metric(name, x, now_ms, step) for name, x in values.items()]
        self._client.log_batch(self.run_id, metrics=metrics, synchronous=True)

    def log_table(self, step: int, rows: Sequence[Row]) -> None:
        file = f"trajectories/step_{step:06d}.json"
        table = {"columns": list(COLUMNS), "data": [list(row) for row in rows]}
        self._client.log_text(self.run_id, json.dumps(table), file)
        self._tables = [*self._tables, file][-_MAX_TABLES:]
        tag = json.dumps([{"path": path, "type": "table"} for path in self._tables])
        self._client.set_tag(self.run_id, _TABLES_TAG, tag)

    def log_page(self, page: Path) -> None:
        self._client.log_artifact(self.run_id, str(page))

    def close(self, is_finished: bool) -> None:
        self._client.set_terminated(self.run_id, "FINISHED" if is_finished else "KILLED")

    def _log_params(self, config: Mapping[str, object]) -> None:
        """A run's parameters cannot be changed later: those of a longer run stay what they were."""
        params = [
            self._entities.Param(name.replace("[", ".").replace("]", ""), str(value)[:_MAX_CHARS])
            for name, value in config.items()
        ]
        for begin in range(0, len(params), _MAX_PARAMS):
            part = params[begin : begin + _MAX_PARAMS]
            self._client.log_batch(self.run_id, params=part, synchronous=True)


def _experiment(client: Any, name: str) -> str:
    """The id of an experiment, which is made if it is not there."""
    name = name or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
    found = client.get_experiment_by_name(name)
    return found.experiment_id if found is not None else client.create_experiment(name)
