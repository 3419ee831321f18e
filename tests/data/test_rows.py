"""Rows of files of every kind: the same rows whatever the file is, and every fault with file and row."""

import gzip
import json
import re
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jaxtool.data import json_array
from jaxtool.data.problem_rows import read_set
from jaxtool.data.problems import ProblemFile
from jaxtool.data.rows import read_rows, source_of, stem_of

ROWS = [{"question": 'a, or "b"?', "answer": "1"}, {"question": "b\nc?", "answer": "2"}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS)
CSV = 'question,answer\r\n"a, or ""b""?",1\r\n"b\nc?",2\r\n'


def parquet(path: Path, rows: list[dict], **options) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path, **options)
    return path


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "places"),
    [
        ("set.jsonl", LINES, ["set.jsonl:1", "set.jsonl:2"]),
        ("set.jsonl.gz", gzip.compress(LINES.encode(), mtime=0), ["set.jsonl.gz:1", "set.jsonl.gz:2"]),
        ("set.json", LINES, ["set.json:1", "set.json:2"]),  # lines under the other name
        ("set.json", json.dumps(ROWS), ["set.json: row 1", "set.json: row 2"]),
        ("set.json", "\ufeff" + json.dumps(ROWS, indent=2) + "\n", ["set.json: row 1", "set.json: row 2"]),
        ("set.json.gz", gzip.compress(json.dumps(ROWS).encode(), mtime=0), ["set.json.gz: row 1", "set.json.gz: row 2"]),
        ("set.csv", CSV, ["set.csv:2", "set.csv:4"]),
        ("set.csv", "\ufeff" + CSV, ["set.csv:2", "set.csv:4"]),
        ("set.csv.gz", gzip.compress(CSV.encode(), mtime=0), ["set.csv.gz:2", "set.csv.gz:4"]),
        ("set.TSV", CSV.replace("question,", "question\t").replace('",', '"\t'), ["set.TSV:2", "set.TSV:4"]),
        ("set.parquet", None, ["set.parquet: row 1", "set.parquet: row 2"]),
        ("no_suffix", None, ["no_suffix: row 1", "no_suffix: row 2"]),  # by its first bytes
    ],
)  # fmt: skip
def test_every_kind_of_file_has_the_same_rows(
    tmp_path: Path, name: str, content, places: list[str]
):
    path = tmp_path / name
    if content is None:
        parquet(path, ROWS)
    else:
        write(path, content)
    found = list(read_rows(path))
    assert [dict(row.values) for row in found] == ROWS
    assert [row.where for row in found] == [f"{tmp_path}/{place}" for place in places]
    assert [tuple(row.columns) for row in found] == [("question", "answer")] * 2
    assert [row.where.endswith(str(row.number)) for row in found] == [True, True]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_an_array_is_read_piece_by_piece(tmp_path: Path, monkeypatch, chunk: int):
    """Wherever a piece ends: in a word, in front of a comma, behind it."""
    rows = [{"question": f"{i} [,] {{}}", "list": [i, {"x": "]"}], "n": i} for i in range(30)]
    path = write(tmp_path / "set.json", json.dumps(rows))
    monkeypatch.setattr(json_array, "_CHUNK_CHARS", chunk)
    assert [row.values for row in read_rows(path)] == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"a": 1}, {"a": ', "row 2: no JSON"),
        ('[{"a": 1} {"a": 2}]', "row 2: no JSON: a comma is missing"),
        ('[{"a": 1},]', "row 2: no JSON"),
        ('[{"a": 1}, 7]', "row 2: a row must be an object, not 7"),
        ('[{"a": 1}] {"a": 2}', "text follows the array: '{\"a\": 2}'"),
        ('[{"a": 1, "a": 2}]', "row 1: no JSON: key 'a' stands twice"),
        ('[{"a": 1}', "row 2: no JSON"),
        ("[" * 100_000, "row 1: no JSON"),
        (b'[{"a": "caf\xe9"}]', "the text is not UTF-8 (0xe9)"),
    ],
)
def test_a_broken_array_says_file_and_row(tmp_path: Path, text: str | bytes, message: str):
    path = write(tmp_path / "set.json", text)
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        list(read_rows(path))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2,3\n", "set.csv:2: 3 fields, and the header has 2 columns"),
        ("a,b\n1\n", "set.csv:2: 1 fields, and the header has 2"),
        ("a,a\n1,2\n", "set.csv:1: column 'a' stands twice in the header"),
        ('a\n"1" x\n', "set.csv:2: no CSV"),
        ('a\n"open', "set.csv:2: no CSV"),
        (b"a\ncaf\xe9\n", "set.csv: the text is not UTF-8"),
        (gzip.compress(b"a\n1\n", mtime=0)[:-9], "the gzip file is damaged"),
        (b"a\0b\n", "byte 1 is 0"),
    ],
)
def test_a_broken_table_of_text_says_file_and_line(tmp_path: Path, text: str | bytes, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        list(read_rows(write(tmp_path / "set.csv", text)))
    assert "\n" not in str(caught.value)


def test_a_long_field_is_read(tmp_path: Path):
    long = "x" * 300_000
    [row] = read_rows(write(tmp_path / "set.csv", f"question\n{long}\n"))
    assert row.values["question"] == long


def test_of_parquet_only_the_columns_that_are_needed_are_read(tmp_path: Path):
    path = parquet(tmp_path / "set.parquet", [row | {"trace": "x"} for row in ROWS])
    found = list(read_rows(path, ("question", "answer")))
    assert [dict(row.values) for row in found] == ROWS
    assert tuple(found[0].columns) == ("question", "answer", "trace")
    with pytest.raises(
        ValueError, match="row 1: no problem: the row has 'question', 'answer', 'trace'"
    ):
        read_set(path, "math500")


def test_a_damaged_parquet_file_is_named_with_the_row(tmp_path: Path):
    rows = [{"question": f"q{i}" * 50, "answer": str(i)} for i in range(4000)]
    path = parquet(tmp_path / "set.parquet", rows, row_group_size=1000, compression="none")
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 4000] = b"\xff" * 4000
    write(path, bytes(content))
    with pytest.raises(
        ValueError, match=r"set\.parquet: the parquet file is damaged .* from row \d+"
    ):
        list(read_rows(path))
    write(path, bytes(content[:-10]))
    with pytest.raises(ValueError, match="damaged or cut short, from row 1 on"):
        list(read_rows(path))


def test_values_that_are_no_text_are_refused_with_file_row_and_path(tmp_path: Path):
    path = parquet(tmp_path / "set.parquet", [{"question": "q", "answer": Decimal("1.5")}])
    with pytest.raises(ValueError, match=r"set\.parquet: row 1: .* for key 'answer'"):
        read_set(path, "plain")


def test_several_files_are_read_in_the_order_of_their_names(tmp_path: Path):
    parquet(tmp_path / "train-1.parquet", ROWS[1:])
    parquet(tmp_path / "train-0.parquet", ROWS[:1])
    found = list(read_rows(tmp_path / "train-*.parquet"))
    assert [dict(row.values) for row in found] == ROWS
    assert stem_of(tmp_path / "train-*.parquet") == "train"
    assert stem_of(tmp_path / "*.parquet") == tmp_path.name
    with pytest.raises(FileNotFoundError, match=r"no problem file fits .*test-\*"):
        list(read_rows(tmp_path / "test-*.parquet"))


def test_a_file_comes_before_the_hub(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert str(source_of("data/gsm8k")) == "data/gsm8k"
    write(tmp_path / "data" / "gsm8k", LINES)
    assert source_of("data/gsm8k") == (Path("data/gsm8k"),)
    assert stem_of("openai/gsm8k:main@train") == stem_of("data/gsm8k.jsonl") == "gsm8k"
    with pytest.raises(FileNotFoundError, match=r"no problem file data/none\.jsonl"):
        source_of("data/none.jsonl")


def test_repeated_rows_are_counted_and_left_out(tmp_path: Path):
    """As in DAPO-Math-17k, whose 1.79 million rows are 17,000 questions."""
    row = {
        "prompt": [{"role": "user", "content": "1+1?"}],
        "reward_model": {"ground_truth": "2"},
        "extra_info": {"index": "0"},
    }
    other = row | {
        "prompt": [{"role": "user", "content": "1+2?"}],
        "reward_model": {"ground_truth": "3"},
    }
    rows = [(row | {"extra_info": {"index": str(i)}}) for i in range(100)] + [other] * 50
    path = parquet(tmp_path / "dapo.parquet", rows)
    found = read_set(path, "dapo_math_17k")
    assert (found.rows, found.repeats, found.conflicts, len(found.problems)) == (150, 148, 0, 2)
    assert str(found) == f"{path}: 150 rows, 2 different questions; 148 rows repeat one"
    spaced = parquet(
        tmp_path / "spaced.parquet",
        [{"question": "a b", "answer": "1"}, {"question": "a  b ", "answer": "1"}],
    )
    assert read_set(spaced, "plain").repeats == 1


def test_a_question_with_two_answers_is_refused_or_left_out(tmp_path: Path):
    rows = [("a", "1"), ("b", "2"), ("a", "1"), ("a", "3")]
    path = parquet(tmp_path / "set.parquet", [{"question": q, "answer": a} for q, a in rows])
    with pytest.raises(
        ValueError, match=r"set\.parquet: row 4: key 'answer' says '3', but row 1 answers"
    ) as caught:
        read_set(path, "plain")
    assert "conflicts = 'drop'" in str(caught.value)
    found = read_set(path, "question=question, conflicts=drop")
    assert [p.question for p in found.problems] == ["b"]
    assert (found.rows, found.repeats, found.conflicts) == (4, 2, 1)
    assert str(found).endswith("2 rows repeat one; 1 questions with different answers are left out")


def test_the_test_file_may_have_a_layout_of_its_own(tmp_path: Path):
    train = parquet(
        tmp_path / "train.parquet", [{"question": f"q{i}", "answer": "1"} for i in range(20)]
    )
    test = write(tmp_path / "test.jsonl", json.dumps({"problem": "q3", "answer": 204}))
    task = ProblemFile(path=str(train), test_path=str(test), test_layout="aime24")
    assert [p.answer for p in task.problems("test", None, 0)] == ["204"]
    assert "q3" not in {p.question for p in task.problems("train", None, 0)}
    with pytest.raises(ValueError, match="needs a test_path"):
        ProblemFile(path=str(train), test_layout="aime24")
    with pytest.raises(ValueError, match="there is no layout 'aime42'"):
        ProblemFile(path=str(train), layout="aime42")
