"""A path that is written must be on this machine, one that is read may be in a bucket: in every command, by one type."""

import argparse
import re
import sys
from pathlib import Path

import pytest
from helpers.loopback_bucket import BUCKET, loopback_bucket

from jaxtool.cli import entry, runs, train
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.report import __main__ as report

# They read files of a search engine's own, and stand outside of the commands.
WITHOUT = {"search.py", "search_engines.py"}
COMMANDS = [
    path
    for folder in ("jaxtool/cli", "benchmarks", "docs")
    for path in sorted((REPOSITORY_ROOT / folder).glob("*.py"))
    if path.name not in WITHOUT
]


@pytest.mark.parametrize("path", COMMANDS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_no_flag_is_a_bare_path(path):
    """pathlib makes gs:/bucket of gs://bucket, a directory of the local disk."""
    assert not re.findall(r"type=(?:pathlib\.)?Path\b", path.read_text(encoding="utf-8"))


def test_the_types_are_used():
    text = "".join(path.read_text(encoding="utf-8") for path in COMMANDS)
    assert text.count("type=entry.local_path") > 10
    assert text.count("type=entry.input_path") > 5


@pytest.mark.parametrize("kind", [entry.local_path, entry.writable])
def test_a_place_in_a_bucket_is_refused_in_one_line(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        argparse.ArgumentTypeError, match=r"gs://bucket/run: only places on"
    ) as said:
        kind("gs://bucket/run")
    assert "\n" not in str(said.value)
    assert kind("run") == Path("run")


def test_an_input_in_a_bucket_is_copied_and_refused_where_there_is_none(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("GCE_METADATA_ROOT", "127.0.0.1:9")
    with loopback_bucket({"cases.jsonl": b"{}\n"}) as server:
        monkeypatch.setenv("TENSORSTORE_GCS_HTTP_URL", server.url)
        assert entry.input_path(f"gs://{BUCKET}/cases.jsonl").read_bytes() == b"{}\n"
        with pytest.raises(
            argparse.ArgumentTypeError, match=f"there is nothing in gs://{BUCKET}/none"
        ):
            entry.input_path(f"gs://{BUCKET}/none")
    with pytest.raises(argparse.ArgumentTypeError, match="only gs://BUCKET/PATH and s3"):
        entry.input_path("abfs://container/x")
    assert entry.input_path("-") == Path("-")


@pytest.mark.parametrize(
    ("parse", "arguments"),
    [
        (train.parse, ["--gin_file", "a.gin", "--workdir", "gs://bucket/run"]),
        (train.parse, ["--gin_file", "a.gin", "--workdir", "r", "--json", "s3://bucket/a.json"]),
        (runs.main, ["list", "gs://bucket/runs"]),
        (report.main, ["gs://bucket/run"]),
        (report.main, ["runs", "--output", "gs://bucket/report.html"]),
    ],
    ids=["workdir", "json", "runs", "report", "output"],
)
def test_a_command_ends_at_its_flags(parse, arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    with pytest.raises(SystemExit) as ended:
        parse()
    assert ended.value.code == 2
    assert "only places on this machine are written" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
