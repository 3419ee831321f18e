"""Flags that every command has: what could not be written at the end is refused at the start."""

import argparse
import errno
import os

import pytest

from jaxtool.cli import entry


def parse(path):
    parser = argparse.ArgumentParser()
    entry.add_json_flag(parser, "write it here")
    return parser.parse_args(["--json", str(path)]).json


def test_json_may_name_a_new_or_an_old_file(tmp_path, monkeypatch):
    assert parse(tmp_path / "a.json") == tmp_path / "a.json"
    (tmp_path / "a.json").write_text("{}")
    assert parse(tmp_path / "a.json") == tmp_path / "a.json"
    monkeypatch.chdir(tmp_path)
    assert str(parse("b.json")) == "b.json"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("none/a.json", "none, which is no directory: make it first"),
        ("file/a.json", "file, which is no directory"),
        ("folder", "is a directory: name a file in it"),
    ],
)
def test_json_into_nowhere_is_refused_before_anything_runs(tmp_path, capsys, name, message):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit):
        parse(tmp_path / name)
    assert message in capsys.readouterr().err


def test_json_into_a_directory_that_cannot_be_written_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: path != tmp_path)
    with pytest.raises(SystemExit):
        parse(tmp_path / "a.json")
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    "command",
    [
        "train",
        "evaluate",
        "quickstart",
        "reproduce",
        "sweep",
        "plan",
        "convert_weights",
        "data",
        "doctor",
        "launch_tpu",
        "top",
    ],
)
def test_every_command_takes_json_from_the_one_helper(command):
    text = (entry.Path(entry.__file__).parent / f"{command}.py").read_text()
    assert "entry.add_json_flag(" in text
    assert '"--json"' not in text


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device", "runs/a/metrics.jsonl"),
        OSError(errno.EROFS, "Read-only file system", "runs/a"),
        PermissionError(errno.EACCES, "Permission denied", "runs/a"),
        IsADirectoryError(errno.EISDIR, "Is a directory", "runs"),
    ],
)
def test_a_disk_that_fails_is_one_line_and_no_traceback(monkeypatch, error):
    monkeypatch.setattr(entry, "prepare", lambda: None)
    monkeypatch.delenv("JAXTOOL_TRACEBACK", raising=False)

    def main():
        raise error

    with pytest.raises(SystemExit) as caught:
        entry.run(main)
    line, remedy = str(caught.value).splitlines()
    assert line == f"error: {error}"
    assert remedy.startswith("(JAXTOOL_TRACEBACK=1")
