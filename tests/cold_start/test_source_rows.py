"""Text reasoning of a file: where each part stands, which rows are worth asking for."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.demonstration_rows import source_row, write_rows

from jaxtool.cold_start.screening import screen
from jaxtool.cold_start.source_rows import LAYOUTS, SourceLayout, read_source
from jaxtool.data.contamination import EvaluationQuestion, EvaluationQuestions
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.text_judges import MultipleChoice


def test_the_plain_layout(tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", [source_row(6, 7), "", source_row(2, 3)])
    first, second = read_source(path, SourceLayout())
    assert (first.row_id, first.answers, second.where) == ("rows/1", ("42",), f"{path}:3")
    assert len(read_source(path, SourceLayout(), 1)) == 1


def test_a_table_has_the_rows_of_the_lines(tmp_path):
    rows = [source_row(6, 7), source_row(2, 3)]
    lines = read_source(write_rows(tmp_path / "rows.jsonl", rows), SourceLayout())
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    found = read_source(tmp_path / "rows.parquet", SourceLayout())
    assert [row.problem for row in found] == [row.problem for row in lines]
    assert found[1].where == f"{tmp_path / 'rows.parquet'}: row 2"


def test_worked_solutions_hold_their_answer(tmp_path):
    gsm8k = {"question": "q", "answer": "Six times seven.\n#### 42"}
    [row] = read_source(write_rows(tmp_path / "a.jsonl", [gsm8k]), LAYOUTS["gsm8k"])
    assert (row.answers, row.reasoning) == (("42",), gsm8k["answer"])
    thoughts = {
        "problem": "q",
        "deepseek_reasoning": "hm",
        "ground_truth_solution": "So \\boxed{1} and \\boxed{\\frac{1}{2}}.",
    }
    [row] = read_source(write_rows(tmp_path / "b.jsonl", [thoughts]), LAYOUTS["open_thoughts"])
    assert row.answers == ("\\frac{1}{2}",)


def test_keys_with_dots_and_several_answers(tmp_path):
    row = {"prompt": [{"content": "q"}], "reasoning": "r", "answer": [42, "42", "forty-two"]}
    layout = SourceLayout(question="prompt[0].content")
    [read] = read_source(write_rows(tmp_path / "a.jsonl", [row]), layout)
    assert (read.question, read.answers) == ("q", ("42", "forty-two"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"question": "q", "answer": 1},
            r"a.jsonl:1: no reasoning: the row has 'question'",
        ),
        ({"question": "", "reasoning": "r", "answer": 1}, "key 'question' is empty"),
        ({"question": ["q"], "reasoning": "r", "answer": 1}, "a text or a number is needed"),
        ("{", "a.jsonl:1: no JSON"),
    ],
)
def test_a_bad_row_is_one_line(tmp_path, row, message):
    path = write_rows(tmp_path / "a.jsonl", [row])
    with pytest.raises(ValueError, match=message):
        read_source(path, SourceLayout())


def test_files_that_are_missing_or_empty(tmp_path):
    with pytest.raises(FileNotFoundError, match="give a file as --source"):
        read_source(tmp_path / "no.jsonl", SourceLayout())
    with pytest.raises(ValueError, match="holds no rows"):
        read_source(write_rows(tmp_path / "a.jsonl", []), SourceLayout())
    with pytest.raises(ValueError, match="must be one of whole, boxed, hashes"):
        SourceLayout(answer_in="half")  # pyright: ignore[reportArgumentType]


def test_rows_that_cannot_become_demonstrations_are_never_asked_for(tmp_path):
    rows = [
        source_row(6, 7),
        source_row(6, 7) | {"reasoning": "another"},
        source_row(3, 4),
        source_row(5, 5) | {"answer": None},
        source_row(8, 8) | {"answer": []},
    ]
    path = write_rows(tmp_path / "rows.jsonl", rows)
    known = EvaluationQuestions(
        [EvaluationQuestion(where="test:9", question=str(rows[2]["question"]))]
    )
    source = read_source(path, SourceLayout())
    screened = screen(source, judge=Mathematics(), evaluation=known, near=None)
    assert [row.row_id for row in screened.rows] == ["rows/1"]
    assert [(row.row_id, row.reason) for row in screened.rejected] == [
        ("rows/4", "no_reference"),
        ("rows/5", "no_reference"),
        ("rows/2", "same_question"),
        ("rows/3", "in_evaluation"),
    ]
    screened = screen(source[:1], judge=MultipleChoice(), evaluation=known, near=None)
    assert screened.rejected[0].reason == "unfit_reference"
    assert "'42' are no letters" in screened.rejected[0].detail
