"""From --log flags to trackers that run: each in its thread, with the run that it continues."""

import dataclasses
import functools
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from jaxtool.config.settings import Setting
from jaxtool.rundir.trackers.base import Memory, Opening, Tracker, config_of
from jaxtool.rundir.trackers.guarded import GuardedTracker, Patience
from jaxtool.rundir.trackers.mlflow_tracker import MlflowTracker
from jaxtool.rundir.trackers.spec import Kind, TrackerSpec
from jaxtool.rundir.trackers.trackio_tracker import TrackioTracker
from jaxtool.rundir.trackers.wandb_tracker import WandbTracker

_TRACKERS: dict[Kind, type[WandbTracker] | type[MlflowTracker] | type[TrackioTracker]] = {
    "wandb": WandbTracker,
    "mlflow": MlflowTracker,
    "trackio": TrackioTracker,
}


def open_trackers(
    specs: Sequence[TrackerSpec],
    workdir: Path,
    settings: Mapping[str, Setting],
    *,
    is_new: bool,
    patience: Patience | None = None,
) -> list[GuardedTracker]:
    """The trackers of a run, for the one process that logs.

    Args:
      is_new: nothing of the run is in its directory yet, so no tracker's run is continued.
    """
    if not specs:
        return []
    memory = Memory(workdir, is_new=is_new)
    return [
        GuardedTracker(
            spec, functools.partial(_open, spec, workdir, settings, memory), memory, patience
        )
        for spec in specs
    ]


def spec_of_part(spec: TrackerSpec, workdir: Path, part: str) -> TrackerSpec:
    """The spec of one run of several in a directory, such as a stage of a quickstart: `NAME-part`.

    Where the flag names no run, NAME is made once and kept in the directory, so that a second start continues it.
    """
    memory = Memory(workdir, is_new=False)
    name = spec.name or memory.name(spec)
    if not name:
        workdir.mkdir(parents=True, exist_ok=True)
        name = _unique_name(workdir)
        memory.keep(spec, name=name)
    return dataclasses.replace(spec, name=f"{name}-{part}")


def log_outcome(
    specs: Sequence[TrackerSpec],
    workdir: Path,
    page: Path,
    metrics: Mapping[str, float] | None = None,
    patience: Patience | None = None,
) -> None:
    """Sends the page of a finished run to the trackers that its directory knows, and figures, which go there once.

    What fails is said and counted, and does not raise.
    """
    for tracker in open_trackers(specs, workdir, {}, is_new=False, patience=patience):
        if metrics:
            tracker.log_metrics(0, metrics)
        tracker.log_page(page)
        tracker.close(is_finished=True)


def _unique_name(workdir: Path) -> str:
    return f"{workdir.absolute().name}-{uuid.uuid4().hex[:4]}"


def _open(
    spec: TrackerSpec, workdir: Path, settings: Mapping[str, Setting], memory: Memory
) -> Tracker:
    """Opens a tracker, in its thread, and keeps the id of its run."""
    name = memory.name(spec) or spec.name or _unique_name(workdir)
    tracker = _TRACKERS[spec.kind](
        Opening(
            spec=spec,
            name=name,
            workdir=workdir,
            config=config_of(settings),
            run_id=memory.run_id(spec),
        )
    )
    memory.keep(spec, id=tracker.run_id, name=name)
    print(f"log {spec}: {tracker.place}", flush=True)
    return tracker
