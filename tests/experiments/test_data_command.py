"""`experiments.data check`: every figure by hand on small files, exit codes, and no jax."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_tokenizers import write_byte_level

from jaxtool.cli import data, entry
from jaxtool.config.loader import REPOSITORY_ROOT
from jaxtool.data.layouts import PRESETS

WORDS = "a train leaves the station at noon and another one leaves it an hour later"


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def start(monkeypatch, tmp_path: Path, *flags: str) -> tuple[int, dict]:
    """Exit code and what --json wrote."""
    monkeypatch.setattr(entry, "prepare", lambda: None)
    out = tmp_path / "out.json"
    monkeypatch.setattr("sys.argv", ["data", *flags, "--json", str(out)])
    try:
        entry.run(data.main)
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    return code, json.loads(out.read_text())


def test_a_good_file(tmp_path: Path, monkeypatch, capsys):
    rows = [{"question": f"What is {i} plus 1?", "answer": i + 1} for i in range(8)]
    more = [
        {"question": f"{WORDS}. When?", "answer": "1/2"},
        {"question": "Who?", "answer": ["x", "y^2"]},
    ]
    file = write(tmp_path / "sums.jsonl", *rows, *rows[:3], *more)
    test = write(
        tmp_path / "test.jsonl",
        rows[2],
        {"question": f"{WORDS}, says he", "answer": "1"},
        {"question": "Free?", "answer": "2"},
    )
    tokenizer = write_byte_level(tmp_path / "tokenizer")
    code, record = start(
        monkeypatch, tmp_path, "check", file, "--against", f"plain={test}", "--judge", "math",
        "--tokenizer", str(tokenizer),
    )  # fmt: skip
    assert code == 0
    assert {key: record[key] for key in ("rows", "questions", "repeats", "conflicts", "unreadable")} == {
        "rows": 13, "questions": 10, "repeats": 3, "conflicts": 0, "unreadable": 0,
    }  # fmt: skip
    assert record["levels"] == {"sums": 10}
    answers = record["answers"]
    assert answers["kinds"] == {"integer": 8, "number": 1, "mathematics": 1}
    assert (answers["several"], answers["fitting"]) == (1, "jaxtool.judges.mathematics.Mathematics")
    assert answers["judge"] == "Mathematics: 10 answers can be judged"
    [against] = record["contamination"]
    assert {key: against[key] for key in ("set", "questions", "contaminated", "same_question", "n")} == {
        "set": "test", "questions": 3, "contaminated": 2, "same_question": 1, "n": 13,
    }  # fmt: skip
    # 17 words make five 13-grams, of which three stand in the file.
    assert [round(e["share"], 2) for e in against["examples"]] == [1.0, 0.6]
    longest = record["prompts"]["longest"]
    assert len(longest) == 5
    assert longest == sorted(longest, key=lambda pair: -pair[0])
    assert longest[0][0] >= record["prompts"]["p99"] >= record["prompts"]["median"]
    assert len(record["examples"]) == 5
    printed = capsys.readouterr().out
    assert "10 different questions; 3 rows repeat one" in printed
    assert (
        "test: 2 of 3 questions stand in the file (one 13-gram of words in common is enough)"
        in printed
    )


def test_rows_that_cannot_be_read_are_counted_and_end_with_1(tmp_path: Path, monkeypatch, capsys):
    rows = [{"question": "a", "answer": "1"}, {"question": "b"}, {"problem": "c", "answer": "1"}]
    rows += [{"question": "a", "answer": "2"}] + [{"question": "d", "answer": None}] * 5
    file = write(tmp_path / "set.jsonl", *rows)
    code, record = start(monkeypatch, tmp_path, "check", file)
    assert code == 1
    assert (record["rows"], record["questions"], record["unreadable"]) == (9, 1, 8)
    assert len(record["faults"]) == 5
    assert record["faults"][0] == f"{file}:2: no answer: the row has 'question'"
    assert "line 1 answers the same question with '1'" in record["faults"][2]
    assert "8 rows, the first of them:" in capsys.readouterr().out


def test_answers_that_the_judge_cannot_read_end_with_1(tmp_path: Path, monkeypatch):
    rows = [{"question": f"who is {i}?", "answer": "Chief of Protocol"} for i in range(3)]
    code, record = start(
        monkeypatch, tmp_path, "check", write(tmp_path / "qa.jsonl", *rows), "--judge", "math"
    )
    assert code == 1
    assert record["answers"]["is_refused"]
    assert "are words" in record["answers"]["judge"]
    assert record["answers"]["fitting"] == "jaxtool.judges.text_judges.ExactMatch"
    assert record["answers"]["kinds"] == {"words": 3}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("none.jsonl",), "there is no problem file none.jsonl"),
        (("{file}", "--layout", "gms8k"), "there is no layout 'gms8k'"),
        (
            ("{file}", "--layout", "math500"),
            r"no row can be read: .*set.jsonl:1: no problem: the row has",
        ),
        (("{file}", "--against", "aime42"), "there is no layout 'aime42'"),
        (("{file}", "--judge", "maths"), "there is no judge 'maths'"),
        (("{file}", "--tokenizer", "nowhere"), "there is no tokenizer nowhere"),
        (("{file}", "--against", "plain={file}", "--ngram", "0"), "n=0 must be 1 or more"),
    ],
)
def test_bad_flags_are_one_line(tmp_path: Path, monkeypatch, flags: tuple[str, ...], message: str):
    file = write(tmp_path / "set.jsonl", {"question": "a", "answer": "1"})
    monkeypatch.setattr(entry, "prepare", lambda: None)
    given = [flag.replace("{file}", file) for flag in flags]
    monkeypatch.setattr("sys.argv", ["data", "check", *given])
    with pytest.raises(SystemExit, match=message) as ended:
        entry.run(data.main)
    assert str(ended.value).count("\n") == 1


def test_layouts_are_listed(tmp_path: Path, monkeypatch, capsys):
    code, record = start(monkeypatch, tmp_path, "layouts")
    assert code == 0
    assert list(record) == list(PRESETS)
    assert "BytedTsinghua-SIA/DAPO-Math-17k@train" in capsys.readouterr().out


def test_no_jax_is_imported(tmp_path: Path):
    file = write(tmp_path / "set.jsonl", {"question": "a", "answer": "1"})
    tokenizer = write_byte_level(tmp_path / "tokenizer")
    flags = [
        "check",
        file,
        "--against",
        f"plain={file}",
        "--judge",
        "math",
        "--tokenizer",
        str(tokenizer),
    ]
    program = (
        "import sys\nfrom jaxtool.cli import data\n"
        f"data.check(data.parse({flags!r}))\nassert 'jax' not in sys.modules, 'jax was imported'\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=REPOSITORY_ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
