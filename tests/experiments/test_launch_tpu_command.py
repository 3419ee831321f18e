"""Bad input of launch_tpu is one line before gcloud is asked; its flags reach experiments.train."""

import sys

import pytest

from jaxtool.cli import launch_tpu
from jaxtool.cluster import gcloud

RUN = "gin_configs/runs/quickstart_grpo.gin"
COLD_START = "gin_configs/runs/quickstart_cold_start.gin"
PLACE = ("--zone", "us-east5-b", "--project", "my-project", "--bucket", "gs://my-bucket")


@pytest.fixture
def launching(monkeypatch):
    """Starts the command on a machine where each call of gcloud would fail the test."""

    def never(*_):
        raise AssertionError("gcloud was asked")

    monkeypatch.setattr(gcloud, "attempt", never)

    def start(*flags):
        monkeypatch.setattr(sys, "argv", ["launch_tpu", *flags])
        launch_tpu.main()

    return start


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("none.gin", "--type", "v6e-8"), "none.gin"),
        ((RUN, "--type", "v6e-8", "--gin_param", "PpoClip.clip_lo = 1"), "clip_low"),
        ((RUN, "--type", "v6e-9"), "unknown accelerator type 'v6e-9'"),
        ((RUN, "--type", "v6e-8", "--zone", "us-east5"), "--zone 'us-east5' must be a zone"),
        ((RUN, "--type", "v6e-8", "--bucket", "my-bucket"), "--bucket 'my-bucket' must be gs://"),
        ((RUN, "--type", "v6e-8", "--name", "My_Run"), "--name 'My_Run'"),
        ((RUN, "--type", "v6e-8", "--init_from", "setup.py"), "setup.py is a path of this machine"),
        ((RUN, "--type", "v6e-8", "--data", "plain=setup.py"), "setup.py is a path of this machine"),
        ((RUN, "--type", "v6e-8", "--steps", "0"), "--steps 0 must be >= 1"),
        ((RUN, "--type", "v6e-8", "--gin_param", "MeshConfig.fsdp = 3"), "does not divide 8 devices"),
        ((COLD_START, "--type", "v6e-8", "--data", "gsm8k"), "a cold start has none"),
        (("gin_configs/algos/grpo.gin", "--type", "v6e-8"), "target"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_gcloud_is_asked(launching, flags, message):
    with pytest.raises((ValueError, OSError), match=message.replace("(", r"\(")) as refused:
        launching(*PLACE, *flags)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "flags", [("--max_restarts", "-1"), ("--poll_s", "0"), ("--poll_s", "nan")]
)
def test_numbers_out_of_range_are_refused(launching, flags, capsys):
    with pytest.raises(SystemExit):
        launching(RUN, "--type", "v6e-8", *PLACE, *flags)
    assert "--max_restarts must be 0 or more, and --poll_s above 0" in capsys.readouterr().err


def test_a_name_is_made_of_the_file_and_the_seed():
    assert launch_tpu.default_name("a/My run_2.gin", 7) == "my-run-2-seed7"


def test_flags_of_the_run_reach_it(launching, capsys):
    flags = (
        "--type",
        "v6e-8",
        "--seed",
        "4",
        "--init_from",
        "org/name",
        "--sandbox",
        "10.0.0.1:50051",
    )
    with pytest.raises(SystemExit) as ended:
        launching(RUN, *PLACE, *flags, "--dry_run", "--name", "mine")
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert "--seed 4 --init_from org/name --sandbox 10.0.0.1:50051\n" in printed
    assert "gs://my-bucket/mine/run.gin" in printed
