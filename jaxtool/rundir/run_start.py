"""One start of a run in its directory: refused, resumed or begun, and what became of it.

A directory belongs to a run once something of the run is in it: a checkpoint, a row of metrics, a policy.
A start that was refused before leaves a line in run.json and owns nothing. Settings are written when the
checks are behind, by the process that holds the directory, so two starts at once leave those of the one
that runs. Not covered: which settings may change (`jaxtool.train.resume_rules`), the lock (`workdir`).
"""

import contextlib
import dataclasses
import datetime
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import jax

from jaxtool.config.loader import ConfigError, write_operative_config
from jaxtool.config.record import git_commit
from jaxtool.config.settings import (
    Change,
    OriginOf,
    Setting,
    changes,
    default_paths,
    is_inside,
    settings_of,
)
from jaxtool.core.files import one_line
from jaxtool.core.stopped import Stopped
from jaxtool.parallel import hosts
from jaxtool.rundir import provenance
from jaxtool.rundir.checkpoints import is_policy
from jaxtool.rundir.run_listing import checkpoints_of
from jaxtool.rundir.run_record import RECORD, RunRecord, Start, Status, read_record
from jaxtool.rundir.trackers.spec import TrackerSpec
from jaxtool.rundir.workdir import is_begun

_SHOWN_CHANGES = 8  # of a refusal; the rest is counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Launch:
    """What a command knows of the run that it starts."""

    files: tuple[str, ...] = ()  # its gin files
    origin: OriginOf | None = None  # where a value of the configuration was set
    command: tuple[str, ...] | None = None  # None: that of this process
    trackers: tuple[TrackerSpec, ...] = ()  # of --log
    traces: bool = False  # --trace: what the run does when, as a file


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identity:
    """What a run is: its configuration, seed and the policy that it starts from."""

    config: Any
    seed: int
    init_from: Path | None
    steps: int

    def settings(self, origin: OriginOf | None = None) -> dict[str, Setting]:
        """By path, without secrets."""
        found = settings_of(self.config, origin)
        found["seed"] = Setting(name="--seed", value=str(self.seed))
        found["init_from"] = Setting(name="--init_from", value=str(self.init_from))
        return {
            path: dataclasses.replace(
                one,
                value=provenance.without_secrets(one.value),
                origin=provenance.without_secrets(one.origin),
            )
            for path, one in found.items()
        }


class RunStart:
    """A start that its directory does not refuse. Several hosts call its methods together."""

    def __init__(
        self, workdir: Path, record: RunRecord, identity: Identity, settings: dict[str, Setting]
    ):
        self._workdir, self._record = workdir, record
        self._identity, self.settings = identity, settings
        self.is_new = not is_begun(workdir)  # nothing of a run is in the directory
        self.has_begun = False  # this start
        # The settings of the run until now, those of this start where there was none.
        self.before = settings if self.is_new else dict(record.settings)
        self.changes: list[Change] = _differences(self.before, settings, identity.config)
        self.is_finished = record.finished_step == identity.steps and is_policy(workdir / "policy")

    def open(self, launch: Launch) -> None:
        """Notes that the start is here; its checks come now."""
        kinds = {device.device_kind for device in jax.devices()}
        start = Start(
            started=_now(),
            status="checking",
            command=provenance.command_line(launch.command),
            directory=str(Path.cwd()),
            commit=git_commit(),
            files=launch.files,
            versions=provenance.versions(),
            environment=provenance.environment(),
            machine=provenance.machine(),
            devices={
                "platform": jax.default_backend(),
                "kind": ", ".join(sorted(kinds)),
                "count": jax.device_count(),
                "processes": jax.process_count(),
            },
            steps=self._identity.steps,
            changed=tuple(map(str, self.changes)),
        )
        self._keep(self._record.with_start(start))

    def begin(self, step: int) -> None:
        """The checks are behind: from its first step on the directory is this run's.

        Args:
          step: that of the checkpoint it resumes from, 0 without one.
        """
        hosts.agree(lambda: self._begin(step))
        self.has_begun = True

    def finish(self) -> None:
        """The policy of the last step is saved."""
        steps = self._identity.steps
        hosts.agree(
            lambda: self._keep(
                dataclasses.replace(
                    self._record.with_last(status="finished", ended=_now()), finished_step=steps
                )
            )
        )

    def end(self, status: Status, error: BaseException | None) -> None:
        """How else it ended; hosts do not wait for each other, because the others may be gone."""
        if not hosts.is_first():
            return
        text = "" if error is None else provenance.without_secrets(one_line(error))
        with contextlib.suppress(OSError):  # a full disk: what is raised already says more
            self._keep(self._record.with_last(status=status, ended=_now(), error=text))

    def _begin(self, step: int) -> None:
        if self.changes or self.is_new:
            # A configuration that was built in Python may hold what gin cannot say.
            with contextlib.suppress(ConfigError):
                write_operative_config(self._workdir, self._identity.config)
        record = self._record.with_last(status="running", from_step=step)
        target = type(self._identity.config)
        self._keep(
            dataclasses.replace(
                record,
                target=f"{target.__module__}.{target.__qualname__}",
                settings=self.settings,
                steps=self._identity.steps,
                finished_step=record.finished_step if not self.is_new else None,
            )
        )

    def _keep(self, record: RunRecord) -> None:
        if hosts.is_first():
            record.write(self._workdir)
        self._record = record


@contextlib.contextmanager
def open_start(
    workdir: Path,
    identity: Identity,
    *,
    launch: Launch,
    may_change: Collection[str] = (),
) -> Iterator[RunStart]:
    """A start in a directory that the caller holds; several hosts call it together.

    Args:
      may_change: names of settings that a run that has begun may be resumed with other values of, as
        "Class.field" or "Class.*", with what lies in them.

    Raises:
      ValueError: another run is in the directory, or one that is longer; one line.
      Stopped: a run of several hosts that was told to stop broke because another host has ended.
    """

    def opened() -> tuple[RunRecord, dict[str, Setting]]:
        settings = identity.settings(launch.origin)
        return check_start(workdir, identity, settings, may_change), settings

    record, settings = hosts.agree(opened)
    start = RunStart(workdir, record, identity, settings)
    start.is_finished = hosts.agree(lambda: start.is_finished)
    if start.is_finished:
        yield start
        return
    hosts.agree(lambda: start.open(launch))
    try:
        yield start
    except BaseException as error:
        if isinstance(error, Exception) and hosts.is_left_alone():
            # A collective that broke because another host has stopped, as this one shall.
            start.end("stopped", None)
            raise Stopped from error
        is_wish = isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)
        status = "stopped" if is_wish else "failed" if start.has_begun else "failed checks"
        start.end(status, None if is_wish else error)
        raise


def check_start(
    workdir: Path, identity: Identity, settings: dict[str, Setting], may_change: Collection[str]
) -> RunRecord:
    """What is known of the directory; an empty record where nothing is.

    Raises:
      ValueError: as `open_start`.
    """
    record = read_record(workdir)
    if not is_begun(workdir):
        return RunRecord(starts=record.starts if record is not None else ())
    if record is None or not record.settings:
        raise ValueError(
            f"{workdir} holds a run without {RECORD}, of an earlier version: choose another --workdir"
        )
    differing = _differences(record.settings, settings, identity.config)
    free = [
        path
        for path, one in {**record.settings, **settings}.items()
        if _is_free(one.name, may_change)
    ]
    if refused := [one for one in differing if not is_inside(one.path, free)]:
        shown = "; ".join(map(str, refused[:_SHOWN_CHANGES]))
        more = len(refused) - _SHOWN_CHANGES
        raise ValueError(
            f"{workdir} holds a run with another configuration ({shown}"
            + f"; and {more} more" * (more > 0)
            + "): put it back, choose another --workdir, or delete this one to start over; "
            "docs/runs.md lists what may change"
        )
    made = max([record.finished_step or 0, *checkpoints_of(workdir)])
    if made > identity.steps:
        raise ValueError(
            f"{workdir} holds a run of {made} steps, more than steps={identity.steps}: give more steps to "
            "go on, or choose another --workdir"
        )
    return record


def _is_free(name: str, may_change: Collection[str]) -> bool:
    return name in may_change or f"{name.partition('.')[0]}.*" in may_change


def _differences(before: Any, now: dict[str, Setting], config: Any) -> list[Change]:
    """Changes, but for two spellings of one path, and for settings at their default that a newer version has.

    A default is what a run did before there was the setting.
    """
    unset = default_paths(config)
    return [
        one
        for one in changes(before, now)
        if not (one.path == "init_from" and _is_one_place(one))
        and not (one.before is None and one.path in unset)
    ]


def _is_one_place(change: Change) -> bool:
    if change.before is None or change.now is None:
        return False
    texts = (change.before.value, change.now.value)
    return "None" not in texts and Path(texts[0]).resolve() == Path(texts[1]).resolve()


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
