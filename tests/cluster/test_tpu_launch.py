"""A launch on a gcloud that can refuse, preempt and fail: what is created, what is given back, what is said."""

import dataclasses
import io
import json
import re
import tarfile

import pytest
from helpers import fake_gcloud

from jaxtool.cluster import gcloud, tpu_launch
from jaxtool.cluster.tpu_job import TpuJob
from jaxtool.cluster.tpu_launch import Patience, Shipment
from jaxtool.cluster.tpu_types import tpu_type

RUN_FILE = "# a run\n"
SLEEPS = "echo started; sleep 60\n"


def job(**changed):
    wanted = {
        "name": "my-run",
        "project": "my-project",
        "zone": "us-east5-b",
        "tpu": tpu_type("v5e-8"),
        "bucket": "gs://my-bucket/jaxtool",
        "is_spot": True,
        "code": "code-1.tar.gz",
        "flags": ("--seed", "3", "--init_from", "gs://my-bucket/weights/it's"),
    }
    return TpuJob(**(wanted | changed))


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Makes a project and puts its gcloud first on PATH."""

    def make(**plan):
        fake_gcloud.make(tmp_path, **plan)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
        return tmp_path

    return make


@pytest.fixture
def shipment(tmp_path):
    """An archive with an empty checkout."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("README.md"))
    return Shipment(archive=buffer.getvalue(), run_file=RUN_FILE)


def start(
    shipment, wanted=None, *, polls=0.02, restarts=3, check_record=lambda text: None, **options
):
    """Checks and launches; the lines that were said, and the outcome."""
    wanted, lines = wanted or job(), []
    state = tpu_launch.check(wanted, check_record)
    patience = Patience(poll_s=polls, most_restarts=restarts)
    flags = {"keeps": False, "looks": True} | options
    outcome = tpu_launch.launch(
        wanted, shipment, state=state, patience=patience, say=lines.append, **flags
    )
    return lines, outcome


def verbs(folder):
    """The commands by their last word: create, describe, ssh all, ssh 0, delete, cp, cat, ..."""
    found = []
    for words in fake_gcloud.calls(folder):
        command = fake_gcloud.parsed(words)[0]
        worker = [word.partition("=")[2] for word in words if word.startswith("--worker")]
        found.append(" ".join([command[-1], *worker]))
    return found


def test_a_run_goes_from_nothing_to_its_end_and_gives_the_slice_back(project, shipment):
    folder = project()
    lines, outcome = start(shipment, job(tpu=tpu_type("v6e-16")))
    assert (outcome.exit_code, outcome.restarts, outcome.is_deleted) == (0, 0, True)
    assert "step 1 of 1" in lines
    assert lines[:3] == [
        f"my-run: {s}" for s in ("WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE")
    ]
    assert (
        lines[-1]
        == "my-run was given back; everything of the run is in gs://my-bucket/jaxtool/my-run"
    )
    place = folder / "bucket/my-bucket/jaxtool/my-run"
    assert (place / "run.gin").read_text() == RUN_FILE
    assert json.loads((place / "workdir/run.json").read_text())["finished_step"] == 1
    trains = (folder / "trains").read_text().splitlines()
    assert [line.split(":")[0] for line in sorted(trains)] == [f"worker {i}" for i in range(4)]
    assert trains[0].endswith(
        "--workdir ../bucket/workdir --distributed --seed 3 --init_from gs://my-bucket/weights/it's"
    )
    installs = (folder / "installs").read_text()
    assert installs.count("pip install --quiet --python") == 4
    assert "-e .[tpu]" in installs
    assert (
        (folder / "mounts")
        .read_text()
        .splitlines()[0]
        .startswith(
            "--implicit-dirs --rename-dir-limit=1000000 --metadata-cache-ttl-secs=0 "
            "--only-dir=jaxtool/my-run my-bucket "
        )
    )
    done = verbs(folder)
    assert done[:6] == ["list", "describe", "describe", "cat", "describe", "cat"]  # free of charge
    assert done[6:10] == ["cp", "cp", "cp", "create"]
    assert done[-1] == "delete"
    assert not (folder / "hosts").exists()


def test_one_host_starts_alone(project, shipment):
    folder = project()
    start(shipment)
    create = next(words for words in fake_gcloud.calls(folder) if "create" in words)
    assert {"--accelerator-type=v5litepod-8", "--runtime-version=v2-alpha-tpuv5-lite"} <= set(
        create
    )
    assert "--spot" in create
    assert "--distributed" not in (folder / "trains").read_text()


@pytest.mark.parametrize(
    ("refuses", "message"),
    [
        ("buckets describe", r"the bucket is there: gcloud says '.*no money' to `gcloud storage"),
        ("accelerator-types describe", "the zone has this type: gcloud says"),
        ("queued-resources describe", "state of the queued resource: gcloud says"),
        ("storage cat", "what workdir/run.json says: gcloud says"),
    ],
)
def test_a_refusal_before_is_one_line_and_creates_nothing(project, shipment, refuses, message):
    folder = project(refuses=[{"if": refuses, "says": "(gcloud) no\nmoney"}])
    with pytest.raises(gcloud.GcloudError, match=message) as raised:
        start(shipment)
    assert "\n" not in str(raised.value)
    assert not {"cp", "create", "delete"} & set(verbs(folder))


@pytest.mark.parametrize(
    ("changed", "plan", "message"),
    [
        ({"zone": "mars-east1-a"}, {}, "PERMISSION_DENIED.*mars-east1-a.*may not exist"),
        ({"tpu": tpu_type("v6e-256")}, {}, "NOT_FOUND: acceleratorTypes/v6e-256"),
        ({"bucket": "gs://other-bucket"}, {}, "gs://other-bucket not found: 404"),
        ({}, {"account": ""}, "nobody is logged in to gcloud: `gcloud auth login`"),
    ],
    ids=["zone", "type", "bucket", "account"],
)
def test_what_is_wrong_is_said_before_anything_is_created(
    project, shipment, changed, plan, message
):
    folder = project(**plan)
    with pytest.raises((gcloud.GcloudError, ValueError), match=message):
        start(shipment, job(**changed))
    assert not {"cp", "create"} & set(verbs(folder))


def test_no_gcloud_is_one_line(monkeypatch, tmp_path, shipment):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match="gcloud is not on PATH: install the Google Cloud CLI"
    ):
        start(shipment)


def test_a_workdir_of_another_run_is_refused_before_anything_is_created(project, shipment):
    folder = project()
    place = folder / "bucket/my-bucket/jaxtool/my-run/workdir"
    place.mkdir(parents=True)
    (place / "run.json").write_text("the record")

    def refuse(text):
        raise ValueError(f"another run: {text}")

    with pytest.raises(ValueError, match="another run: the record"):
        start(shipment, check_record=refuse)
    assert not {"cp", "create"} & set(verbs(folder))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (None, "that gs://my-bucket/jaxtool/my-run knows nothing of: choose another --name"),
        ({"type": "v6e-8"}, "is a v6e-8, not a v5litepod-8: give --type v6e-8"),
    ],
    ids=["strange", "other type"],
)
def test_a_slice_of_somebody_else_is_left_alone(project, shipment, record, message):
    folder = project()
    gcloud.run(job().create())
    if record is not None:
        place = folder / "bucket/my-bucket/jaxtool/my-run"
        place.mkdir(parents=True)
        (place / "launch.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=message):
        start(shipment)
    assert "delete" not in verbs(folder)


def test_a_slice_that_is_taken_away_is_asked_for_again_and_the_run_resumes(project, shipment):
    first = (
        "if [ ! -e ../bucket/workdir/saved ]; then touch ../bucket/workdir/saved; sleep 60; fi\n"
    )
    folder = project(train=first + fake_gcloud.FINISHES, preempts_at_polls=[2])
    lines, outcome = start(shipment)
    assert (outcome.exit_code, outcome.restarts) == (0, 1)
    assert "the slice was taken away: restart 1 of 3" in lines
    done = verbs(folder)
    assert (done.count("create"), done.count("delete")) == (2, 2)
    assert len((folder / "trains").read_text().splitlines()) == 2
    assert "step 1 of 1" in lines


def test_a_slice_that_is_always_taken_away_is_given_up(project, shipment):
    folder = project(train=SLEEPS, preempts_at_polls=[1, 2, 3, 4, 5])
    with pytest.raises(gcloud.GcloudError, match="ended early 3 times, more than --max_restarts 2"):
        start(shipment, restarts=2)
    assert verbs(folder).count("create") == 3
    assert "resource" not in json.loads((folder / "state.json").read_text())


def test_a_run_that_saved_at_a_preemption_notice_is_not_taken_for_finished(project, shipment):
    """It ends with 0, and its record says that steps are left."""
    early = (
        "if [ ! -e ../bucket/workdir/saved ]; then touch ../bucket/workdir/saved\n"
        'echo \'{"finished_step": null, "steps": 1}\' > ../bucket/workdir/run.json; exit 0; fi\nsleep 0.3\n'
    )
    folder = project(train=early + fake_gcloud.FINISHES)
    lines, outcome = start(shipment)
    assert (outcome.exit_code, outcome.restarts) == (0, 1)
    assert "the run has stopped early: restart 1 of 3" in lines
    assert verbs(folder).count("create") == 1


def test_a_run_that_fails_is_followed_to_its_last_line_and_the_slice_given_back(project, shipment):
    folder = project(train="echo 'error: no such file'; printf 'half a line'; exit 1\n")
    lines, outcome = start(shipment)
    assert (outcome.exit_code, outcome.is_deleted) == (1, True)
    assert "error: no such file" in lines
    assert "half a line" in lines
    assert verbs(folder)[-1] == "delete"


def test_a_host_on_which_no_run_would_go_ends_it_before_the_start(project, shipment):
    folder = project(doctor_exit=1)
    with pytest.raises(
        gcloud.GcloudError, match=r"look at all hosts: gcloud says .*worker 0: ok disk"
    ):
        start(shipment)
    assert not (folder / "trains").exists()
    assert verbs(folder)[-1] == "delete"
    lines, outcome = start(shipment, looks=False)
    assert outcome.exit_code == 0
    assert "look at all hosts" not in lines


def test_a_request_that_fails_is_said_and_deleted(project, shipment):
    folder = project(final="FAILED")
    with pytest.raises(gcloud.GcloudError, match="the request for my-run failed"):
        start(shipment)
    assert verbs(folder)[-1] == "delete"


def test_a_refused_creation_is_one_line(project, shipment):
    project(
        refuses=[{"if": "queued-resources create", "says": "(gcloud) RESOURCE_EXHAUSTED: quota"}]
    )
    with pytest.raises(gcloud.GcloudError, match=r"ask for the slice: gcloud says .*quota"):
        start(shipment)


def test_a_connection_that_fails_for_a_while_ends_nothing(project, shipment):
    folder = project(refuses=[{"if": "JAXTOOL_RUN", "says": "(ssh) broken pipe", "times": 3}])
    assert start(shipment)[1].exit_code == 0
    assert verbs(folder).count("ssh 0") >= 4


def test_a_connection_that_never_comes_is_given_up(project, shipment):
    folder = project(refuses=[{"if": "JAXTOOL_RUN", "says": "(ssh) broken pipe"}])
    with pytest.raises(
        gcloud.GcloudError, match=r"my-run is ACTIVE, and ssh says '\(ssh\) broken pipe'"
    ):
        start(shipment)
    assert verbs(folder)[-1] == "delete"


def test_ctrl_c_leaves_the_run_and_the_same_command_follows_it(project, shipment):
    folder = project(
        train="echo begun; while [ ! -e ../go ]; do sleep 0.05; done\n" + fake_gcloud.FINISHES
    )
    wanted, lines = job(), []

    def say(line):
        lines.append(line)
        if line == "begun":
            raise KeyboardInterrupt

    flags = {"patience": Patience(poll_s=0.02), "keeps": False, "looks": True}
    with pytest.raises(KeyboardInterrupt):
        tpu_launch.launch(wanted, shipment, state=None, say=say, **flags)
    assert lines[-1].startswith("the run goes on and costs money: the same command follows it")
    assert "delete" not in verbs(folder)

    def let_go(line):
        lines.append(line)
        if line == "begun":
            (folder / "hosts/0/jaxtool_run/go").touch()

    (folder / "doctor_exit").write_text("1")  # the run holds the devices: nobody looks at them now
    lines.clear()
    newer = dataclasses.replace(wanted, code="code-2.tar.gz")
    outcome = tpu_launch.launch(newer, shipment, state="ACTIVE", say=let_go, **flags)
    assert outcome.exit_code == 0
    assert lines.count("begun") == 1
    assert (folder / "installs").read_text().count("uv venv") == 1
    assert len((folder / "trains").read_text().splitlines()) == 1  # it was not started twice
    assert verbs(folder).count("create") == 1


def test_keep_leaves_the_slice(project, shipment):
    folder = project()
    lines, outcome = start(shipment, keeps=True)
    assert not outcome.is_deleted
    assert "--keep: the slice stays and costs money" in lines[-1]
    assert "delete" not in verbs(folder)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "My_Run"}, "--name 'My_Run' must be small letters"),
        ({"zone": "us-east5"}, "--zone 'us-east5' must be a zone such as us-east5-b"),
        ({"project": "x"}, "--project 'x' must be a project's id"),
        ({"bucket": "my-bucket"}, "--bucket 'my-bucket' must be gs://BUCKET"),
        ({"bucket": "s3://my-bucket"}, "--bucket 's3://my-bucket' must be gs://BUCKET"),
        ({"is_reserved": True}, "--spot and --reserved"),
    ],
)
def test_names_that_gcloud_would_not_take_are_refused(changed, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        job(**changed)


@pytest.mark.parametrize(
    ("text", "accelerator", "runtime", "hosts"),
    [
        ("v6e-64", "v6e-64", "v2-alpha-tpuv6e", 16),
        ("v5e-8", "v5litepod-8", "v2-alpha-tpuv5-lite", 1),
        ("v5litepod-16", "v5litepod-16", "v2-alpha-tpuv5-lite", 4),
        ("v5p-128", "v5p-128", "v2-alpha-tpuv5", 16),
        ("v4-32", "v4-32", "tpu-ubuntu2204-base", 4),
    ],
)
def test_types_are_those_of_gcloud(text, accelerator, runtime, hosts):
    found = tpu_type(text)
    assert (found.accelerator, found.runtime, found.slice.num_hosts) == (
        accelerator,
        runtime,
        hosts,
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("v6e-63", "unknown accelerator type 'v6e-63': v6e has v6e-1, v6e-4"),
        ("v9-8", "unknown topology 'v9-8'"),
        ("v6e:8x8", "gcloud takes accelerator types"),
        ("tpu7x-16", "tpu7x is to be had on GKE only"),
    ],
)
def test_an_unknown_type_is_refused_with_what_there_is(text, message):
    with pytest.raises(ValueError, match=message):
        tpu_type(text)


def test_the_plan_of_a_dry_run_is_what_a_launch_does(project, shipment):
    """Each planned command is accepted; a launch does them in that order, some of them again."""
    folder = project(states=[])
    planned = [fake_gcloud.parsed(list(c.arguments))[0] for c in tpu_launch.planned(job())]
    start(shipment)
    done = [fake_gcloud.parsed(words)[0] for words in fake_gcloud.calls(folder)]
    at = iter(done)
    assert all(command in at for command in planned)
    assert set(done) == set(planned)


def test_the_fake_refuses_flags_that_gcloud_does_not_have():
    with pytest.raises(fake_gcloud.Refusal, match="unrecognized arguments: --preemptable"):
        fake_gcloud.parsed([*job().create().arguments, "--preemptable"])
    with pytest.raises(fake_gcloud.Refusal, match="Invalid choice"):
        fake_gcloud.parsed(["compute", "tpus", "queued-resources", "make", "x"])
