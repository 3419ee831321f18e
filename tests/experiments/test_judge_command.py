"""experiments.judge: rows in, verdicts out, 1 where one is not as wanted; bad rows refused by line and key."""

import json
import sys

import pytest

from jaxtool.cli import judge as command
from jaxtool.judges.case_files import read_cases

ROWS = [
    {"id": "a", "gold": "Paris", "response": "<answer>paris</answer>", "want": True},
    {"answer": ["New York", "NYC"], "response": "\\boxed{NYC}"},
    {"id": 7, "gold": "C", "response": "\\boxed{B}", "want": False, "judge": "choice"},
    {"id": "b", "gold": "Rome", "response": "x", "want": True, "note": "we think otherwise"},
]


def run(monkeypatch, tmp_path, rows, *flags):
    file = tmp_path / "cases.jsonl"
    file.write_text("\n".join(json.dumps(row) for row in rows))
    out = tmp_path / "out.json"
    argv = ["judge", "--cases", str(file), "--json", str(out), "--judge", "exact_match", *flags]
    monkeypatch.setattr(sys, "argv", argv)
    code = 0
    try:
        command.main()
    except SystemExit as end:
        code = end.code
    return code, json.loads(out.read_text())


def test_verdicts_and_a_disputed_row(monkeypatch, tmp_path, capsys):
    code, record = run(monkeypatch, tmp_path, ROWS)
    assert (code, record["differ"]) == (0, 0)
    assert [(c["id"], c["got"], c["want"]) for c in record["cases"]] == [
        ("a", True, True),
        ("2", True, None),
        ("7", False, False),
        ("b", False, True),
    ]
    assert record["cases"][2]["how"] == "chose B"
    printed = capsys.readouterr().out
    assert (
        "b  wrong  no answer  gold 'Rome'  answer none  WANTED right (disputed: we think" in printed
    )
    assert "4 rows, 2 right; 2 of 2 as wanted" in printed


def test_a_verdict_that_is_not_as_wanted_ends_with_1(monkeypatch, tmp_path):
    code, record = run(monkeypatch, tmp_path, [ROWS[0] | {"want": False}])
    assert (code, record["differ"]) == (1, 1)


def test_the_tags_of_a_renderer(monkeypatch, tmp_path):
    template = tmp_path / "own.toml"
    template.write_text(
        '[[messages]]\nrole = "user"\ncontent = "{question}"\n[format]\nuses_chat_template = false\n'
        'response_prefix = ""\n[answer]\nclose = "</final>"\nstyle = "answer_tag"\n'
    )
    row = {"gold": "Paris", "response": "<answer>Rome</answer><final>Paris</final>", "want": True}
    code, _ = run(monkeypatch, tmp_path, [row], "--renderer", str(template))
    assert code == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "no JSON"),
        (b"\xff", "byte 31 of the text, 0xff, is not UTF-8"),
        (b"[1]", "must be an object"),
        (b'{"response": "x"}', "the row has 'None' for key 'answer'; a text or a number is needed"),
        (b'{"gold": [], "response": "x"}', "'gold' is an empty list"),
        (b'{"gold": " ", "response": "x"}', "'gold' is empty"),
        (b'{"gold": NaN, "response": "x"}', "key 'gold' is nan; a finite number is needed"),
        (
            b'{"gold": true, "response": "x"}',
            "the row has 'True' for key 'gold'; a text or a number is",
        ),
        (b'{"gold": "1"}', "key 'response' must be a text, not None"),
        (b'{"gold": "1", "response": "x", "want": "yes"}', "key 'want' must be true or false"),
        (
            b'{"gold": "1", "response": "x", "judge": "maths"}',
            "there is no judge 'maths'; there are math",
        ),
        (b'{"gold": "1", "response": "x", "judge": 3}', "key 'judge' must be a name, not 3"),
        (b'{"gold": "1", "response": "x", "judge": "os:nothing"}', "judge 'os:nothing'"),
    ],
)
def test_bad_rows_are_refused_by_line(tmp_path, line, message):
    file = tmp_path / "bad.jsonl"
    file.write_bytes(b'{"gold": "1", "response": "x"}\n' + line)
    with pytest.raises(ValueError, match=rf"bad.jsonl:2: .*{message}"):
        read_cases(file, "math")


def test_missing_and_empty_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file of cases"):
        read_cases(tmp_path / "none.jsonl", "math")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(ValueError, match="holds no case"):
        read_cases(tmp_path / "empty.jsonl", "math")
