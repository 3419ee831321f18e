"""A run on a TPU slice as gcloud commands; nothing here runs one. Flags are those of gcloud's reference."""

import dataclasses
import re

from jaxtool.cluster import worker_scripts
from jaxtool.cluster.gcloud import Command
from jaxtool.cluster.tpu_types import TpuType

_NAME = re.compile(r"[a-z](?:[-a-z0-9]{0,61}[a-z0-9])?")
_ZONE = re.compile(r"[a-z]+-[a-z]+\d+-[a-z]")
_PROJECT = re.compile(r"(?:[a-z][-a-z0-9.]*:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_BUCKET = re.compile(r"gs://([a-z0-9][-a-z0-9_.]{1,220}[a-z0-9])((?:/[\w.-]+)*)/?")
_SCOPE = "https://www.googleapis.com/auth/cloud-platform"  # its hosts write to the bucket


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpuJob:
    """A run, the slice that it wants and the place that it writes to."""

    name: str  # of the run, the queued resource and its node
    project: str
    zone: str
    tpu: TpuType
    bucket: str  # gs://BUCKET[/FOLDER]; the run lies in a folder of its name there
    is_spot: bool = False  # cheap, and taken away at any time
    is_reserved: bool = False  # of a reservation of the project
    service_account: str | None = None  # None: the project's own of Compute Engine
    code: str = "code.tar.gz"  # archive of the checkout, by its content's name
    flags: tuple[str, ...] = ()  # of experiments.train

    def __post_init__(self) -> None:
        wanted = (
            ("--name", self.name, _NAME, "small letters, digits and -, 63 at most"),
            ("--zone", self.zone, _ZONE, "a zone such as us-east5-b"),
            ("--project", self.project, _PROJECT, "a project's id such as my-project"),
            ("--bucket", self.bucket, _BUCKET, "gs://BUCKET or gs://BUCKET/FOLDER"),
        )
        for flag, value, pattern, meaning in wanted:
            if not pattern.fullmatch(value):
                raise ValueError(f"{flag} {value!r} must be {meaning}")
        if self.is_spot and self.is_reserved:
            raise ValueError("--spot and --reserved: a reservation is not taken away; give one")

    @property
    def folder(self) -> str:
        """Where everything of the run lies."""
        return f"{self.bucket.rstrip('/')}/{self.name}"

    @property
    def _bucket_and_folder(self) -> tuple[str, str]:
        bucket, _, folder = self.folder.removeprefix("gs://").partition("/")
        return bucket, folder

    def look_at_account(self) -> Command:
        return Command(
            why="somebody is logged in",
            arguments=(
                *("auth", "list", "--filter=status:ACTIVE", "--format=value(account)"),
                f"--project={self.project}",
            ),
        )

    def look_at_bucket(self) -> Command:
        bucket, _ = self._bucket_and_folder
        return Command(
            why="the bucket is there",
            arguments=(
                *("storage", "buckets", "describe", f"gs://{bucket}", "--format=value(name)"),
                f"--project={self.project}",
            ),
        )

    def look_at_type(self) -> Command:
        return self._tpu(
            "the zone has this type",
            *("accelerator-types", "describe", self.tpu.accelerator, "--format=value(type)"),
        )

    def look_at_resource(self) -> Command:
        return self._tpu(
            "state of the queued resource",
            *("queued-resources", "describe", self.name, "--format=value(state.state)"),
        )

    def read(self, name: str) -> Command:
        """Prints a file of the run's folder."""
        return Command(
            why=f"what {name} says",
            arguments=("storage", "cat", f"{self.folder}/{name}", f"--project={self.project}"),
        )

    def upload(self, path: str, name: str) -> Command:
        """Copies a file of this machine into the run's folder."""
        return Command(
            why=f"upload {name}",
            arguments=(
                *("storage", "cp", path, f"{self.folder}/{name}"),
                f"--project={self.project}",
            ),
        )

    def create(self) -> Command:
        kind = ["--spot"] * self.is_spot + ["--reserved"] * self.is_reserved
        account = [f"--service-account={self.service_account}"] if self.service_account else []
        return self._tpu(
            "ask for the slice",
            *("queued-resources", "create", self.name, f"--node-id={self.name}"),
            f"--accelerator-type={self.tpu.accelerator}",
            f"--runtime-version={self.tpu.runtime}",
            f"--scopes={_SCOPE}",
            *(*kind, *account, "--quiet"),
        )

    def delete(self) -> Command:
        return self._tpu(
            "give the slice back",
            *("queued-resources", "delete", self.name, "--force", "--quiet"),
        )

    def install(self) -> Command:
        bucket, folder = self._bucket_and_folder
        script = worker_scripts.install(bucket, folder, self.code)
        return self._ssh("mount the bucket and install on all hosts", "all", script)

    def look_at_hosts(self) -> Command:
        return self._ssh("look at all hosts", "all", worker_scripts.look())

    def start(self) -> Command:
        distributed = ("--distributed",) if self.tpu.slice.num_hosts > 1 else ()
        script = worker_scripts.start((*distributed, *self.flags))
        return self._ssh("start the run on all hosts", "all", script)

    def poll(self, offset: int) -> Command:
        return self._ssh("how the run goes", "0", worker_scripts.poll(offset))

    def _ssh(self, why: str, worker: str, script: str) -> Command:
        return self._tpu(
            *(why, "tpu-vm", "ssh", self.name, f"--worker={worker}"),
            *(f"--command={script}", "--quiet"),
        )

    def _tpu(self, why: str, *arguments: str) -> Command:
        place = (f"--project={self.project}", f"--zone={self.zone}")
        return Command(
            why=why, arguments=("compute", "tpus", *arguments[:3], *place, *arguments[3:])
        )
