"""Each job of a sweep as a command for another machine. Nothing here runs one, and there is no scheduler of ours."""

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from jaxtool.config.places import command_words
from jaxtool.study.sweep import SweepJob
from jaxtool.study.sweep_files import Sweep

_LONGEST_CLOUD_NAME = 50  # of 63 that Google Cloud takes


def train_command(sweep: Sweep, job: SweepJob, servers: Sequence[str] = ()) -> list[str]:
    """The words of `experiments.train` for a job.

    Args:
      servers: flags of running servers, such as --sandbox HOST:PORT.
    """
    files = [word for file in sweep.run for word in ("--gin_file", file)]
    command = [*command_words("train"), *files, "--workdir", str(job.workdir)]
    return [*command, *_flags(sweep, job), *servers]


def launch_command(sweep: Sweep, job: SweepJob, flags: Sequence[str]) -> list[str]:
    """The words of `experiments.launch_tpu` for a job.

    Args:
      flags: of the slice, the same for every job: --type, --zone, --project, --bucket.
    """
    command = [*command_words("launch_tpu"), *sweep.run, *flags]
    return [*command, "--name", cloud_name(sweep, job), *_flags(sweep, job)]


def fetch_command(sweep: Sweep, job: SweepJob, bucket: str) -> list[str]:
    """Brings a run that `launch_command` made into the sweep's directory, where the table looks for it.

    Args:
      bucket: gs://BUCKET[/FOLDER], as launch_tpu takes it.
    """
    place = f"{bucket.rstrip('/')}/{cloud_name(sweep, job)}/workdir"
    return ["gcloud", "storage", "rsync", "--recursive", place, str(job.workdir)]


def cloud_name(sweep: Sweep, job: SweepJob) -> str:
    """Of a job's slice and folder: small letters, digits and -; a digest keeps names apart that are cut."""
    digest = hashlib.sha256(job.name.encode()).hexdigest()[:6]
    text = re.sub(r"[^a-z0-9]+", "-", f"s-{Path(sweep.file).stem}-{job.name}".lower())
    return f"{text[:_LONGEST_CLOUD_NAME].strip('-')}-{digest}"


def _flags(sweep: Sweep, job: SweepJob) -> list[str]:
    bindings = [word for one in job.composed.point.params for word in ("--gin_param", one)]
    steps = ["--steps", str(sweep.steps)] if sweep.steps is not None else []
    start = ["--init_from", job.init_from] if job.init_from is not None else []
    return [*bindings, "--seed", str(job.seed), *steps, *start]
