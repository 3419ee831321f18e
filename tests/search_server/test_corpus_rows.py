"""Rows of a corpus: both layouts, all kinds of files, and one line with file and line number for each fault."""

import json

import pyarrow
import pyarrow.parquet
import pytest
from helpers.search_serving import ROWS, write_rows

from search_server import corpus
from search_server.corpus import BadCorpus


def read(*files):
    return [document for _, document in corpus.documents(files)]


@pytest.mark.parametrize("name", ["c.jsonl", "c.jsonl.gz"])
def test_both_layouts_become_title_in_quotes_and_text(tmp_path, name):
    found = read(write_rows(tmp_path / name, ROWS))
    assert [document.id for document in found] == ["temple", "kiss", "700", "3", "zoë"]
    assert found[0].contents == ROWS[0]["contents"]
    assert (found[0].title, found[0].text[:14]) == ("Shirley Temple", "Shirley Temple")
    assert found[2].contents == '"Lord High Treasurer"\nAn English government position.'
    assert json.loads(found[4].as_json())["contents"].endswith('\x00 "quoted" NEAR(a b) * -x:y.')


def test_parquet_gives_the_same_documents(tmp_path):
    rows = [{"title": "A", "text": "one"}, {"title": None, "text": "two"}]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "c.parquet")
    assert read(tmp_path / "c.parquet") == read(write_rows(tmp_path / "c.jsonl", rows))


def test_numbers_count_over_all_files_and_skipped_rows_are_not_looked_at(tmp_path):
    first = write_rows(tmp_path / "a.jsonl", [{"text": "one"}, "", '{"text": 5}'])
    second = write_rows(tmp_path / "b.jsonl", [{"text": "two"}])
    assert [d.id for _, d in corpus.documents([first, second], skip=2)] == ["2"]


def test_contents_without_a_title_line_are_all_text(tmp_path):
    [document] = read(write_rows(tmp_path / "c.jsonl", [{"contents": "only text"}]))
    assert (document.title, document.contents) == ("", '""\nonly text')


def test_half_of_a_surrogate_pair_is_replaced(tmp_path):
    [document] = read(write_rows(tmp_path / "c.jsonl", ['{"id": "\\ud800", "text": "a\\udfffb"}']))
    assert (document.id, document.text) == ("\ufffd", "a\ufffdb")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("{nonsense", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("5", "must be an object, not int"),
        ("{}", "its keys: none"),
        ('{"id": "a", "body": "x"}', "needs 'contents', or 'text' and 'title'; its keys: 'id', 'body'"),
        ('{"title": "A"}', "needs 'contents'"),
        ('{"text": " \\n"}', "has no text"),
        ('{"contents": "\\n"}', "has no text"),
        ('{"text": ["a"]}', "text must be text, not list"),
        ('{"title": 3, "text": "a"}', "title must be text, not int"),
        ('{"id": true, "text": "a"}', "id must be text or a whole number, not True"),
        ('{"id": "", "text": "a"}', "id must be text"),
        ('{"id": 1.5, "text": "a"}', "id must be text"),
        (json.dumps({"text": "x" * (corpus.MOST_CONTENT_BYTES + 1)}), "longer than 1,048,576 bytes"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_by_file_and_line(tmp_path, row, said):
    file = write_rows(tmp_path / "c.jsonl", [{"text": "good"}, "", row])
    with pytest.raises(BadCorpus) as caught:
        read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}:3: ")
    assert said in message
    assert "\n" not in message
    assert len(message) < 500


def test_a_line_is_not_read_without_bound(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_MOST_LINE_BYTES", 30)
    file = write_rows(tmp_path / "c.jsonl", [{"text": "short"}, {"text": "x" * 1000}])
    with pytest.raises(BadCorpus, match=r"c\.jsonl:2: the line is longer than 30 bytes"):
        read(file)


def test_bytes_that_are_not_utf_8_are_named(tmp_path):
    (tmp_path / "c.jsonl").write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    with pytest.raises(BadCorpus, match=r"c\.jsonl:2: not UTF-8"):
        read(tmp_path / "c.jsonl")


def test_damaged_files_are_named(tmp_path):
    (tmp_path / "cut.jsonl.gz").write_bytes(
        write_rows(tmp_path / "c.jsonl.gz", ROWS).read_bytes()[:-9]
    )
    (tmp_path / "plain.jsonl.gz").write_bytes(b'{"text": "a"}\n')
    for name in ("cut", "plain"):
        with pytest.raises(BadCorpus, match=rf"{name}\.jsonl\.gz:\d+: damaged gzip"):
            read(tmp_path / f"{name}.jsonl.gz")
    (tmp_path / "c.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(BadCorpus, match=r"c\.parquet:1: damaged Parquet"):
        read(tmp_path / "c.parquet")
    pyarrow.parquet.write_table(pyarrow.table({"body": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(BadCorpus, match="none of the columns id, contents, title, text"):
        read(tmp_path / "other.parquet")


def test_files_are_checked_before_they_are_read(tmp_path):
    with pytest.raises(BadCorpus, match="no such file"):
        corpus.check_files([tmp_path / "c.jsonl"])
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(BadCorpus, match=r"must end in one of \.jsonl"):
        corpus.check_files([tmp_path / "c.txt"])
    file = write_rows(tmp_path / "c.jsonl", ROWS)
    with pytest.raises(BadCorpus, match="given twice"):
        corpus.check_files([file, tmp_path / "." / "c.jsonl"])


def test_an_empty_corpus_and_double_ids_are_refused(tmp_path):
    with pytest.raises(BadCorpus, match="the corpus is empty"):
        corpus.check_rows([write_rows(tmp_path / "empty.jsonl", ["", " "])])
    # The third row has no id: its number is 2, which the first has taken.
    file = write_rows(
        tmp_path / "c.jsonl", [{"id": "2", "text": "a"}, {"text": "b"}, {"text": "c"}]
    )
    with pytest.raises(BadCorpus, match=rf"c\.jsonl:3: the id '2' is that of {file}:1 already"):
        corpus.check_rows([file])
    assert corpus.check_rows([write_rows(tmp_path / "good.jsonl", ROWS)]) == len(ROWS)


def test_ids_whose_hashes_are_equal_are_compared(tmp_path, monkeypatch):
    monkeypatch.setattr(corpus, "_hash", lambda name: 1)
    assert corpus.check_rows([write_rows(tmp_path / "c.jsonl", ROWS)]) == len(ROWS)
