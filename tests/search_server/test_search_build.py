"""The builder: a build that was killed goes on, one index is of one corpus, trouble is one line and keeps what was done."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
from helpers.search_serving import ROWS, write_rows

from search_server import build, lexical
from search_server.corpus import BadCorpus
from search_server.lexical import LexicalSearch
from search_server.manifest import Manifest

MANY = [{"title": f"T{i}", "text": f"passage number {i}"} for i in range(40)]


@pytest.fixture
def corpus_file(tmp_path):
    return write_rows(tmp_path / "c.jsonl", MANY)


class Killed(BaseException):
    """What no handler of the builder catches, as a kill."""


def stop_after(monkeypatch, count, error):
    """Entry number `count` raises `error`; commits come every 10 rows."""
    entry = lexical.entry
    made = []

    def counted(document, number):
        if len(made) == count:
            raise error
        made.append(number)
        return entry(document, number)

    monkeypatch.setattr(build, "ROWS_A_COMMIT", 10)
    monkeypatch.setattr(lexical, "entry", counted)
    return made


def test_a_build_that_was_killed_goes_on_after_its_last_commit(
    tmp_path, corpus_file, monkeypatch, capfd
):
    code = (
        "import os, pathlib, signal, sys\n"
        "from search_server import build, lexical\n"
        "entry, build.ROWS_A_COMMIT = lexical.entry, 10\n"
        "def dies(document, number):\n"
        "    if number == 25: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return entry(document, number)\n"
        "lexical.entry = dies\n"
        "build.build([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", code, str(corpus_file), str(tmp_path / "i")]
    done = subprocess.run(command, check=False, stderr=subprocess.DEVNULL, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert not (tmp_path / "i").exists()
    made = stop_after(monkeypatch, 1000, Killed())
    build.build([corpus_file], tmp_path / "i")
    assert made == list(range(20, 40))
    assert "goes on where it was" in capfd.readouterr().err
    whole = LexicalSearch(tmp_path / "i" / "passages")
    fresh = LexicalSearch(_built(tmp_path / "fresh", corpus_file))
    for query in ("passage number 3", "T31", "number"):
        assert found(whole, query) == found(fresh, query)
    assert not (tmp_path / "i.part").exists()


def found(search, query):
    return [(hit.document, pytest.approx(hit.score)) for hit in search.search([query], 40)[0]]


def _built(folder, corpus_file):
    build.build([corpus_file], folder)
    return folder / "passages"


def test_a_build_that_is_there_is_taken(tmp_path, corpus_file, monkeypatch):
    first = build.build([corpus_file], tmp_path / "i")
    monkeypatch.setattr(build.corpus, "check_rows", None)  # would fail if it were read again
    assert build.build([corpus_file], tmp_path / "i") == first
    assert first.documents == 40


def test_an_index_of_other_files_is_refused_and_rebuilt_when_asked(tmp_path, corpus_file):
    build.build([corpus_file], tmp_path / "i")
    other = write_rows(tmp_path / "other.jsonl", ROWS)
    with pytest.raises(BadCorpus, match=r"built of other files.* \(c\.jsonl\): give --rebuild"):
        build.build([other], tmp_path / "i")
    assert build.build([other], tmp_path / "i", rebuild=True).documents == len(ROWS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.jsonl", "i", "other.jsonl"]


def test_a_corpus_that_changed_during_a_build_begins_anew(tmp_path, corpus_file, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 25, Killed())
        with pytest.raises(Killed):
            build.build([corpus_file], tmp_path / "i")
    write_rows(corpus_file, ROWS)
    assert build.build([corpus_file], tmp_path / "i").documents == len(ROWS)
    assert LexicalSearch(tmp_path / "i" / "passages").num_documents == len(ROWS)


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full: free some room"),
        (ValueError("An IO error occurred: 'No space left on device (os error 28)'"), "the disk is full"),
        (ValueError("An index writer was killed.. A worker thread"), "could not be built: An index"),
        (OSError(errno.EIO, "Input/output error"), "Input/output error"),
    ],
)  # fmt: skip
def test_trouble_of_the_disk_is_one_line_and_what_was_done_is_kept(
    tmp_path, corpus_file, monkeypatch, error, said
):
    with monkeypatch.context() as patch:
        stop_after(patch, 25, error)
        with pytest.raises(BadCorpus) as caught:
            build.build([corpus_file], tmp_path / "i")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    made = stop_after(monkeypatch, 1000, Killed())
    assert build.build([corpus_file], tmp_path / "i").documents == 40
    assert made == list(range(25, 40))


def test_a_writer_that_dies_on_a_full_disk_is_a_full_disk(tmp_path, corpus_file, monkeypatch):
    stop_after(monkeypatch, 25, ValueError("An index writer was killed"))
    monkeypatch.setattr(build.shutil, "disk_usage", lambda folder: SimpleNamespace(free=4096))
    with pytest.raises(BadCorpus, match="the disk is full: free some room and start again"):
        build.build([corpus_file], tmp_path / "i")


def test_one_builder_at_a_time(tmp_path, corpus_file):
    (tmp_path / "i.part").mkdir()
    descriptor = os.open(tmp_path / "i.part", os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    with pytest.raises(BadCorpus, match="another process builds this index"):
        build.build([corpus_file], tmp_path / "i")
    os.close(descriptor)


def test_an_index_that_is_not_whole_or_unreadable_is_refused(tmp_path, corpus_file):
    with pytest.raises(BadCorpus, match=r"no index: it has no manifest\.json"):
        Manifest.read(tmp_path)
    made = build.build([corpus_file], tmp_path / "i")
    made.replace(is_whole=False).write(tmp_path / "i")
    with pytest.raises(BadCorpus, match="the build did not end"):
        Manifest.read(tmp_path / "i")
    made.replace(format=99).write(tmp_path / "i")
    with pytest.raises(BadCorpus, match="an index of format 99, this is 1: --rebuild"):
        Manifest.read(tmp_path / "i")
    (tmp_path / "i" / "manifest.json").write_text("{}")
    with pytest.raises(BadCorpus, match="unreadable"):
        Manifest.read(tmp_path / "i")


@pytest.mark.parametrize("module", ["search_server", "search_server.build"])
def test_a_bad_row_ends_the_command_with_one_line(tmp_path, module):
    file = write_rows(tmp_path / "c.jsonl", [{"text": "good"}, {"txt": "bad"}])
    done = subprocess.run(
        [sys.executable, "-m", module, "--corpus", str(file)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert done.stdout == ""
    assert done.stderr.splitlines()[-1] == (
        f"search_server: {file}:2: needs 'contents', or 'text' and 'title'; its keys: 'txt'"
    )
    assert "Traceback" not in done.stderr
