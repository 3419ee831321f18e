"""A run on a TPU slice from its checks to its end: ask, install, start, follow, ask again after a preemption.

  1. Checks that cost nothing, `check`. One line, and nothing was created.
  2. The checkout, the composed run file and launch.json go into the run's folder of the bucket.
  3. A queued resource is asked for, or found: the same command goes on with what it has begun.
  4. The hosts mount the bucket, install, look at themselves and start experiments.train.
  5. The log of host 0 is followed. A slice that is taken away is given back and asked for again, as in 3.
  6. The slice is given back, however it ended; not at Ctrl-C, which only ends the following.

Not covered: several slices, quotas.
"""

import dataclasses
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from jaxtool.cluster import gcloud
from jaxtool.cluster.gcloud import Command, GcloudError
from jaxtool.cluster.tpu_job import TpuJob
from jaxtool.cluster.worker_scripts import POLLED

RECORD, RUN_FILE = "launch.json", "run.gin"
_ENDED = ("FAILED", "SUSPENDING", "SUSPENDED", "DELETING")
_SSH_ATTEMPTS = 5  # of a host that does not answer on a slice that is there


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shipment:
    """What goes into the bucket."""

    archive: bytes  # of the checkout, as tar.gz
    run_file: str  # the composed run, as gin


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patience:
    """How often and how long things are asked."""

    poll_s: float = 30.0
    most_restarts: int = 20  # after preemptions
    sleep: Callable[[float], None] = time.sleep


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a launch ended."""

    exit_code: int  # of experiments.train
    restarts: int
    is_deleted: bool  # the slice was given back


class _Preempted(Exception):
    """The slice is no longer there."""


class _Stopped(Exception):
    """The run has ended before its last step, and the slice is there."""


def planned(job: TpuJob) -> list[Command]:
    """Every command of a launch without preemption, in order; a poll and a look at the resource stand for many."""
    return [
        *checks_of(job),
        *(job.upload(f"/tmp/{name}", name) for name in (job.code, RUN_FILE, RECORD)),
        job.create(),
        job.look_at_resource(),
        *(job.install(), job.look_at_hosts(), job.start(), job.poll(0)),
        job.delete(),
    ]


def checks_of(job: TpuJob) -> list[Command]:
    return [
        job.look_at_account(),
        job.look_at_bucket(),
        job.look_at_type(),
        job.read("workdir/run.json"),
        job.look_at_resource(),
        job.read(RECORD),
    ]


def check(job: TpuJob, check_record: Callable[[str], None]) -> str | None:
    """Everything that can be wrong before something is created; the state of a resource that is there already.

    Args:
      check_record: raises ValueError where the run.json in the bucket is of another run.

    Raises:
      FileNotFoundError: there is no gcloud.
      GcloudError: it refuses something.
      ValueError: nobody is logged in, or the name is taken.
    """
    if not gcloud.run(job.look_at_account()).strip():
        raise ValueError("nobody is logged in to gcloud: `gcloud auth login`")
    gcloud.run(job.look_at_bucket())
    gcloud.run(job.look_at_type())
    if (record := gcloud.find(job.read("workdir/run.json"))) is not None:
        check_record(record)
    state = gcloud.find(job.look_at_resource())
    begun = gcloud.find(job.read(RECORD))
    if state is not None and begun is None:
        raise ValueError(
            f"there is a queued resource {job.name} that {job.folder} knows nothing of: choose another --name, or "
            f"`{job.delete()}`"
        )
    if begun is not None and (other := json.loads(begun)["type"]) != job.tpu.accelerator and state:
        raise ValueError(
            f"the queued resource {job.name} is a {other}, not a {job.tpu.accelerator}: give --type {other}, or "
            f"`{job.delete()}` and start again"
        )
    return None if state is None else state.strip()


def launch(
    job: TpuJob,
    shipment: Shipment,
    *,
    state: str | None,
    patience: Patience,
    keeps: bool,
    looks: bool,
    say: Callable[[str], None],
) -> Outcome:
    """From the upload to the end of the run.

    Args:
      state: what `check` found.
      keeps: the slice stays when the run has ended.
      looks: experiments.doctor may end it on a host.
      say: takes the launcher's lines and those of the run's log.

    Raises:
      GcloudError: gcloud refuses something; the slice is given back, unless `keeps`.
      KeyboardInterrupt: the slice and the run go on.
    """
    _upload(job, shipment)
    restarts = 0
    try:
        while True:
            try:
                _acquire(job, state, patience, say)
                _begin(job, say, looks=looks)
                code = _follow(job, patience, say)
                break
            except (_Preempted, _Stopped) as end:
                restarts += 1
                if restarts > patience.most_restarts:
                    raise GcloudError(
                        f"ended early {restarts} times, more than --max_restarts {patience.most_restarts}: the same "
                        "command goes on from the last checkpoint"
                    ) from None
                is_gone = isinstance(end, _Preempted)
                what = "the slice was taken away" if is_gone else "the run has stopped early"
                say(f"{what}: restart {restarts} of {patience.most_restarts}")
                if is_gone:
                    gcloud.find(job.delete())
                state = None if is_gone else "ACTIVE"
    except KeyboardInterrupt:
        say(
            f"the run goes on and costs money: the same command follows it, `{job.delete()}` ends it"
        )
        raise
    except BaseException:
        _give_back(job, say, keeps=keeps)
        raise
    _give_back(job, say, keeps=keeps)
    return Outcome(exit_code=code, restarts=restarts, is_deleted=not keeps)


def _upload(job: TpuJob, shipment: Shipment) -> None:
    record = {"name": job.name, "type": job.tpu.accelerator, "zone": job.zone, "code": job.code}
    files = {
        job.code: shipment.archive,
        RUN_FILE: shipment.run_file.encode(),
        RECORD: json.dumps(record, indent=1).encode(),
    }
    with tempfile.TemporaryDirectory(prefix="jaxtool-launch-") as folder:
        for name, content in files.items():
            path = Path(folder) / name
            path.write_bytes(content)
            gcloud.run(job.upload(str(path), name))


def _acquire(
    job: TpuJob, state: str | None, patience: Patience, say: Callable[[str], None]
) -> None:
    """Waits until the slice is there; it is asked for where it is not."""
    if state in _ENDED:
        gcloud.find(job.delete())
        state = None
    if state is None:
        gcloud.run(job.create())
    said = None
    while True:
        state = (gcloud.find(job.look_at_resource()) or "").strip()
        if state != said:
            say(f"{job.name}: {state or 'not there yet'}")
            said = state
        if state == "ACTIVE":
            return
        if state == "FAILED":
            raise GcloudError(
                f"the request for {job.name} failed: `gcloud compute tpus queued-resources describe {job.name} "
                f"--project={job.project} --zone={job.zone}` said why; often it is a quota"
            )
        if state in _ENDED:
            raise _Preempted
        patience.sleep(patience.poll_s)


def _begin(job: TpuJob, say: Callable[[str], None], *, looks: bool) -> None:
    for command in (job.install(), *((job.look_at_hosts(),) if looks else ()), job.start()):
        say(command.why)
        try:
            gcloud.run(command)
        except GcloudError:
            _check_is_there(job)
            raise


def _follow(job: TpuJob, patience: Patience, say: Callable[[str], None]) -> int:
    """Says the log's lines until the run has ended; its exit status."""
    offset, silent, partial = 0, 0, b""
    while True:
        done = gcloud.attempt(job.poll(offset))
        text, marker, state = done.stdout.rpartition(f"\n{POLLED} ".encode())
        if done.returncode or not marker:
            _check_is_there(job)
            silent += 1
            if silent == _SSH_ATTEMPTS:
                raise GcloudError(f"{job.name} is ACTIVE, and ssh says {gcloud.said(done)!r}")
            patience.sleep(patience.poll_s)
            continue
        silent, offset = 0, offset + len(text)
        *lines, partial = (partial + text).split(b"\n")
        for line in lines:
            say(line.decode("utf-8", "replace"))
        status = state.decode().strip()
        if text and status != "running":
            continue  # the rest of the log first
        if status == "running":
            patience.sleep(patience.poll_s)
            continue
        if partial:
            say(partial.decode("utf-8", "replace"))
        if status == "0" and _is_finished(job):
            return 0
        # Processes of a slice that is being taken away end before it does.
        patience.sleep(patience.poll_s)
        _check_is_there(job)
        if status in ("0", "lost"):
            raise _Stopped
        return int(status)


def _is_finished(job: TpuJob) -> bool:
    """Whether the run's record says so: at a preemption notice a run saves and ends with 0 as well."""
    record = json.loads(gcloud.find(job.read("workdir/run.json")) or "{}")
    return bool(record) and record["finished_step"] == record["steps"]


def _check_is_there(job: TpuJob) -> None:
    """Raises _Preempted where the slice is not there any more."""
    if (gcloud.find(job.look_at_resource()) or "").strip() != "ACTIVE":
        raise _Preempted


def _give_back(job: TpuJob, say: Callable[[str], None], *, keeps: bool) -> None:
    if keeps:
        say(f"--keep: the slice stays and costs money; `{job.delete()}` ends that")
        return
    gcloud.find(job.delete())
    say(f"{job.name} was given back; everything of the run is in {job.folder}")
