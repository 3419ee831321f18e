"""Files as they come: encodings, line ends, compression, broken rows. Read right, or refused by name."""

import gzip
import json
from pathlib import Path

import pytest

from jaxtool.data.layouts import Layout
from jaxtool.data.problem_rows import read_problems

ROWS = [{"question": "a?", "answer": "1"}, {"question": "b?", "answer": "2"}]
LINES = [json.dumps(row, ensure_ascii=False) for row in ROWS]
TEXT = "\n".join(LINES) + "\n"


def found(path: Path, content: bytes, layout: Layout | None = None) -> list[tuple[str, str]]:
    path.write_bytes(content)
    return [(p.question, p.answer) for p in read_problems(path, layout or Layout())]


def refused(path: Path, content: bytes, layout: Layout | None = None) -> str:
    with pytest.raises(ValueError, match=r"set\.jsonl") as caught:
        found(path, content, layout)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.encode().rstrip(b"\n"),
        b"\xef\xbb\xbf" + TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        gzip.compress(TEXT.encode(), mtime=0),
        gzip.compress(b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(), mtime=0),
        b"".join(gzip.compress(line.encode() + b"\n", mtime=0) for line in LINES),
        ("\n \n" + TEXT + "\n\t\n").encode(),
    ],
    ids=["plain", "no end", "bom", "crlf", "gzip", "gzip bom crlf", "gzip members", "blank lines"],
)
def test_the_usual_spellings_of_a_file_are_read(tmp_path: Path, content: bytes):
    assert found(tmp_path / "set.jsonl", content) == [("a?", "1"), ("b?", "2")]


@pytest.mark.parametrize(
    "inside",
    ["\u2028", "\u2029", "\u0085", "\x7f", "\u00a0", "\ufeff", "\u001c", "\u000b", "\u000c"],
)
def test_a_row_ends_at_a_newline_only(tmp_path: Path, inside: str):
    is_control = ord(inside) < 32
    text = json.dumps({"question": f"a{inside}b", "answer": "1"}, ensure_ascii=is_control)
    assert found(tmp_path / "set.jsonl", f"{text}\n{LINES[1]}\n".encode()) == [
        (f"a{inside}b", "1"),
        ("b?", "2"),
    ]


def test_another_encoding_is_named_with_line_and_byte(tmp_path: Path):
    latin = f'{LINES[0]}\n{{"question": "café?", "answer": "1"}}\n'.encode("latin-1")
    message = refused(tmp_path / "set.jsonl", latin)
    assert f"set.jsonl:2: byte {latin.index(0xE9)} of the text, 0xe9, is not UTF-8" in message
    assert "iconv -f LATIN1" in message
    with_bom = b"\xef\xbb\xbf" + latin
    assert f"byte {with_bom.index(0xE9)} of" in refused(tmp_path / "set.jsonl", with_bom)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_encodings_are_named(tmp_path: Path, encoding: str):
    assert "UTF-16" in refused(tmp_path / "set.jsonl", TEXT.encode(encoding))


@pytest.mark.parametrize(
    ("content", "name", "remedy"),
    [
        (b"PAR1\x15\x04\x15", "parquet file is damaged", "download it again"),
        (b"ARROW1\0\0\xff", "arrow", "read_feather"),
        (b"\xff\xff\xff\xff\x10\0", "arrow stream", "to_json"),
        (b"PK\x03\x04\x14\0", "zip", "unzip"),
        (b"BZh91AY&SY", "bzip2", "bunzip2"),
        (b"\xfd7zXZ\0", "xz", "unxz"),
        (b"\x28\xb5\x2f\xfd\x04", "zstd", "unzstd"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "git-lfs", "git lfs pull"),
        (b"\x93NUMPY\x01\0", "byte 7 is 0", "binary"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-9], "gzip file is damaged", "gzip"),
        (gzip.compress(TEXT.encode(), mtime=0)[:-8] + b"\0" * 8, "gzip file is damaged", "CRC"),
        (b"\x1f\x8b\x08\0junk that is no deflate stream", "gzip file is damaged", "gzip"),
        (b"question,answer\na,1\n", "set.jsonl:1: no JSON", ""),
        (b"", "holds no problem", ""),
        (b"\xef\xbb\xbf", "holds no problem", ""),
    ],
)
def test_files_of_another_kind_are_named_with_a_remedy(
    tmp_path: Path, content: bytes, name: str, remedy: str
):
    message = refused(tmp_path / "set.jsonl", content)
    assert name in message
    assert remedy in message


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "q", "answer": NaN}', "key 'answer' is nan"),
        ('{"question": "q", "answer": 1e999}', "key 'answer' is inf"),
        ('{"question": "q", "answer": -Infinity}', "key 'answer' is -inf"),
        ('{"question": "q", "answer": [1, NaN]}', "key 'answer[1]' is nan"),
        ('{"question": "q", "answer": "1", "answer": "2"}', "key 'answer' stands twice"),
        ('{"question": "q", "answer": "1"', "no JSON"),
        ('{"question": "q", "answer": "1"} {}', "no JSON: Extra data"),
        ("{'question': 'q', 'answer': '1'}", "no JSON"),
        ('{"question": "a\tb", "answer": "1"}', "no JSON: Invalid control character"),
        ('{"question": "\\ud800", "answer": "1"}', "key 'question' holds half of a surrogate"),
        ('{"question": "q", "answer": "\\udfff"}', "key 'answer' holds half of a surrogate"),
        ('{"question": "q", "answer": ' + "9" * 5000 + "}", "no JSON"),
        ("[" * 100_000, "nested too deeply"),
        ("null", "must be an object"),
        ('"text"', "must be an object"),
    ],
)
def test_a_broken_row_says_file_line_and_key(tmp_path: Path, line: str, message: str):
    said = refused(tmp_path / "set.jsonl", f"{LINES[0]}\n\n{line}\n".encode())
    assert "set.jsonl:3: " in said
    assert message in said


@pytest.mark.parametrize(
    "answer",
    [
        "6*12=<<6*12=72>>72\n#### 72",
        "#### 18",
        "so it is\n  #### 1,072 \n",
        ["72", "it is\n#### 72"],
        r"We get $x=3$, so the answer is $\boxed{3}$.",
        r"Thus \boxed{\frac{1}{2}}",
    ],
)
def test_a_worked_solution_is_no_answer(tmp_path: Path, answer: object):
    row = json.dumps({"question": "q", "answer": answer}).encode()
    said = refused(tmp_path / "set.jsonl", row)
    assert "set.jsonl:1: key 'answer' holds a whole solution" in said
    assert "answer_pattern" in said


@pytest.mark.parametrize("answer", ["#1", "C#", r"\boxed{3}", r"$\boxed{3}$", "a #### b"])
def test_what_only_looks_like_a_solution_is_an_answer(tmp_path: Path, answer: str):
    row = json.dumps({"question": "q", "answer": answer}).encode()
    assert found(tmp_path / "set.jsonl", row) == [("q", answer)]


def test_a_pattern_that_finds_an_empty_answer_finds_none(tmp_path: Path):
    row = json.dumps({"question": "q", "answer": "it is: "}).encode()
    said = refused(tmp_path / "set.jsonl", row, Layout(answer_pattern="it is:(.*)"))
    assert "set.jsonl:1: no answer" in said
    assert "no answer" in refused(
        tmp_path / "set.jsonl", row, Layout(answer_pattern="it (?:was (.*)|is)")
    )


def test_a_pattern_that_is_no_regular_expression_is_refused():
    with pytest.raises(ValueError, match=r"answer_pattern='\(a' is no regular expression: missing"):
        Layout(answer_pattern="(a")


def test_a_directory_and_a_missing_file_are_named(tmp_path: Path):
    with pytest.raises(ValueError, match="is a directory: name a file in it"):
        read_problems(tmp_path, "plain")
