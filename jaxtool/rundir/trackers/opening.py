"""From --log flags to trackers that run: each in its thread, with the run that it continues."""

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


def _open(
    spec: TrackerSpec, workdir: Path, settings: Mapping[str, Setting], memory: Memory
) -> Tracker:
    """Opens a tracker, in its thread, and keeps the id of its run."""
    unique = f"{workdir.absolute().name}-{uuid.uuid4().hex[:4]}"
    name = memory.name(spec) or spec.name or unique
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
