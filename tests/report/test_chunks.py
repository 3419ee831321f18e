"""Chunks: nothing is lost on the way, a large page names what lies beside it, and no text becomes a program."""

import base64
import gzip
import json
import re

import pytest
from helpers.answer_examples import make_record

from benchmarks.report_page import many_lines, many_records
from jaxtool.core import files
from jaxtool.report import chunks, page
from jaxtool.report.chunks import chunked
from jaxtool.report.viewer_rows import row_of_record, row_of_view

HOSTILE = '")</script><script>alert(1)</script><!--\u2028'


def unpacked(content: str) -> list:
    return json.loads(gzip.decompress(base64.b64decode(content)))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(chunks, "CHUNK_CHARACTERS", 4000)
    monkeypatch.setattr(chunks, "MAX_INSIDE", 1000)


def test_every_answer_comes_back_from_its_chunk(small_chunks):
    rows = [row_of_view(line) for line in many_lines(12, tokens=200)]
    found = chunked(iter(rows))
    index = found.index
    assert index["count"] == 12
    assert len(index["texts"]) > 1
    for kind, names in (("body", index["texts"]), ("figures", index["figures"])):
        loaded = {name: unpacked(found.chunks[name]) for name in names}
        for row, (number, place) in zip(rows, index["columns"][kind], strict=True):
            wanted = row.body if kind == "body" else row.figures
            assert loaded[names[number]][place] == wanted
    questions = [index["questions"][k]["id"] for k in index["columns"]["question"]]
    assert questions == [f"p{i // 4}" for i in range(12)]
    assert len(index["questions"]) == 3


def test_the_same_answers_make_the_same_chunks_and_others_others():
    def names(records):
        return list(chunked(map(row_of_record, records)).chunks)

    assert names(many_records(20, tokens=30)) == names(many_records(20, tokens=30))
    assert names(many_records(20, tokens=30)) != names(many_records(20, tokens=31))


def test_a_large_page_names_scripts_beside_it_which_hold_base64_alone(tmp_path, small_chunks):
    records = [*many_records(60, tokens=50), make_record(question=HOSTILE, final_answer=HOSTILE)]
    path = page.write_report(tmp_path / "r.html", page.Report(title="t", answers=tuple(records)))
    text = path.read_text()
    index = json.loads(text.split('id="report-data">')[1].split("</script>")[0])["answers"]
    assert index["folder"] == "r_data"
    written = sorted(file.name for file in (tmp_path / "r_data").iterdir())
    assert written == sorted(index["texts"])
    for name in written:
        script = (tmp_path / "r_data" / name).read_text()
        assert re.fullmatch(rf'jaxtoolChunk\("{name}","[A-Za-z0-9+/]+=*"\)\n', script)
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy is not None
    assert re.search(r"script-src 'sha256-[A-Za-z0-9+/]{43}=' 'strict-dynamic';", policy[1])
    assert text.count("<script") == 2
    assert HOSTILE not in text


def test_a_page_written_again_leaves_no_chunk_that_nothing_names(tmp_path, small_chunks):
    path, folder = tmp_path / "r.html", tmp_path / "r_data"
    page.write_report(path, page.Report(title="t", answers=tuple(many_records(60, tokens=50))))
    before = set(folder.iterdir())
    (folder / "mine.txt").write_text("not a chunk")
    page.write_report(path, page.Report(title="t", answers=tuple(many_records(60, tokens=51))))
    after = set(folder.iterdir())
    assert folder / "mine.txt" in after
    assert not before & after
    (folder / "mine.txt").unlink()
    page.write_report(path, page.Report(title="t"))
    assert not folder.exists()


@pytest.mark.parametrize("fails_at", ["a chunk", "the page"])
def test_a_full_disk_leaves_the_page_of_before_with_its_chunks(
    tmp_path, small_chunks, monkeypatch, fails_at
):
    path, folder = tmp_path / "r.html", tmp_path / "r_data"
    page.write_report(path, page.Report(title="t", answers=tuple(many_records(60, tokens=50))))
    before, old_text = set(folder.iterdir()), path.read_text()
    others = tuple(many_records(60, tokens=51))
    written = 1 if fails_at == "a chunk" else len(chunked(map(row_of_record, others)).chunks)
    write_bytes, left = files.write_bytes, iter(range(written))

    def full(target, content):
        if next(left, None) is None:
            raise OSError(28, "No space left on device")
        return write_bytes(target, content)

    monkeypatch.setattr(files, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        page.write_report(path, page.Report(title="t", answers=others))
    assert path.read_text() == old_text
    assert before <= set(folder.iterdir())


def test_a_small_page_is_complete_alone(tmp_path):
    path = page.write_report(
        tmp_path / "r.html", page.Report(title="t", answers=tuple(many_records(30, tokens=20)))
    )
    assert [file.name for file in tmp_path.iterdir()] == ["r.html"]
    assert "'strict-dynamic'" not in path.read_text()


def test_the_page_itself_stays_small(tmp_path):
    """A line of the index for each answer: about 200 bytes, whatever the answers' length."""
    sizes = {}
    for tokens in (20, 2000):
        found = chunked(map(row_of_record, many_records(200, tokens=tokens)))
        sizes[tokens] = len(json.dumps(found.index)) / 200
    assert sizes[20] < 300
    assert sizes[2000] < 1.1 * sizes[20]
