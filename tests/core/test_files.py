"""Files that are whole or not there."""

import errno
import os

import pytest

from jaxtool.core import files


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, call):
    path = files.write_text(tmp_path / "results.json", "old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, call, full)
        with pytest.raises(OSError, match="No space left"):
            files.write_text(path, "new" * 1000)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert files.write_text(path, "new").read_text() == "new"


def test_a_file_has_the_mode_that_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        path = files.write_text(tmp_path / "a", "")
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_an_error_is_one_line_and_not_endless():
    assert files.one_line(ValueError("a\n  b\n\nc")) == "a b c"
    assert files.one_line(ValueError("x" * 500), 10) == "x" * 10 + "..."
    assert files.one_line(KeyError()) == "KeyError"
