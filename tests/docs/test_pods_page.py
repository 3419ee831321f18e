"""docs/pods.md leads from nothing to a 7B run: each of its commands is accepted by a gcloud with the real one's flags."""

import json
import pathlib
import shlex
import sys

import pytest
from helpers import fake_gcloud

from docs.commands import commands, fenced
from jaxtool.cli import launch_tpu
from jaxtool.cluster import tpu_launch
from jaxtool.config.loader import REPOSITORY_ROOT

PAGE = REPOSITORY_ROOT / "docs" / "pods.md"
TEXT = PAGE.read_text(encoding="utf-8")
SHELL = [
    shlex.split(line, comments=True)
    for block in fenced(TEXT)
    for line in block.splitlines()
    if line.startswith("gcloud ")
]
LAUNCHES = [
    list(one.arguments)
    for one in commands(TEXT, "pods.md")
    if one.is_whole and one.module == "experiments.launch_tpu"
]


@pytest.mark.parametrize("words", SHELL, ids=lambda words: " ".join(words[1:5]))
def test_every_gcloud_command_of_the_page_has_flags_of_gcloud(words):
    command, _, flags = fake_gcloud.parsed(words[1:])
    assert command in fake_gcloud.FLAGS
    needs_zone = command[:2] == ("compute", "tpus")
    assert flags.get("--zone", "us-east5-b") == "us-east5-b"
    assert not needs_zone or "--zone" in flags


def test_the_page_goes_from_login_over_bucket_and_weights_to_the_results():
    names = [fake_gcloud.parsed(words[1:])[0] for words in SHELL]
    assert names[:5] == [
        ("auth", "login"),
        ("services", "enable"),
        ("storage", "buckets", "create"),
        ("storage", "cp"),
        ("storage", "cp"),
    ]
    assert names.count(("storage", "cp")) == 3
    assert [("--dry_run" in words) for words in LAUNCHES] == [True, False]
    dry, real = ([w for w in words if w != "--dry_run"] for words in LAUNCHES)
    assert dry == real  # what is paid for is what was looked at


def start(monkeypatch, flags, record):
    monkeypatch.setattr(sys, "argv", ["launch_tpu", *flags, "--json", str(record)])
    with pytest.raises(SystemExit) as ended:
        launch_tpu.main()
    return ended.value.code, json.loads(record.read_text())


def test_the_dry_run_of_the_page_prints_commands_that_gcloud_takes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(tpu_launch.gcloud, "attempt", None)  # nothing is run
    code, record = start(monkeypatch, LAUNCHES[0], tmp_path / "dry.json")
    assert (code, record["is_dry_run"], record["exit_code"]) == (0, True, None)
    assert record["plan"].startswith("plan: v6e:4x4 fits, 21.41 of 31.24 GiB a device")
    printed = capsys.readouterr().out
    assert len(record["commands"]) == 16
    for row in record["commands"]:
        assert f"# {row['why']}\n{shlex.join(row['command'])}\n" in printed
        assert fake_gcloud.parsed(row["command"][1:])[0]
    assert record["folder"] in TEXT  # where the page looks for the results


def test_the_run_of_the_page_ends_on_a_gcloud_of_this_machine(monkeypatch, tmp_path, capsys):
    project = tmp_path / "project"
    project.mkdir()
    fake_gcloud.make(project)
    monkeypatch.setenv("PATH", f"{project / 'bin'}:/usr/bin:/bin")
    flags = [*LAUNCHES[1], "--poll_s", "0.02"]
    code, record = start(monkeypatch, flags, tmp_path / "run.json")
    assert (code, record["exit_code"], record["is_deleted"]) == (0, 0, True)
    folder = project / "bucket" / record["folder"].removeprefix("gs://")
    composed = (folder / "run.gin").read_text()
    assert "path = 'gs://my-bucket/weights/Qwen2.5-Math-7B'" in composed
    assert "path = 'gs://my-bucket/data/train.parquet'" in composed
    assert "step 1 of 1" in capsys.readouterr().out
    # Started again, it finds another run there: refused before anything is created.
    (folder / "workdir/run.json").write_text(json.dumps(record_of_another_run()))
    before = len(fake_gcloud.calls(project))
    with pytest.raises(ValueError, match="another configuration") as refused:
        launch_tpu.main()
    assert f"{record['folder']}/workdir" in str(refused.value)
    assert "choose another --name" in str(refused.value)
    assert not any("create" in words for words in fake_gcloud.calls(project)[before:])


def record_of_another_run():
    setting = {"name": "RlConfig.renderer", "value": "'another'", "origin": "x.gin:1"}
    return {
        "target": "",
        "settings": {"renderer": setting},
        "steps": 1,
        "finished_step": None,
        "starts": [],
    }


def test_the_page_says_what_is_not_tested():
    limits = TEXT[TEXT.index("## Limits") :]
    assert "Nobody has started it on a TPU pod yet" in limits
    assert "tested against stand-ins" in limits
    assert pathlib.Path(PAGE.parent / "gpus.md").is_file()
