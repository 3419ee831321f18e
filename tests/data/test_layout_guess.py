"""A layout is found by reading the first rows; where several fit or none does, the file's owner is asked."""

import json

import pytest

from jaxtool.data.layout_guess import guess_layout


def write(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize(
    ("layout", "row"),
    [
        ("plain", {"question": "1 + 1?", "answer": "2"}),
        ("plain", {"question": "No question mark", "answer": 2}),
        ("gsm8k", {"question": "1 + 1?", "answer": "It is two.\n#### 2"}),
        ("math500", {"problem": "x", "answer": "2", "level": 3, "solution": "long"}),
        ("aime24", {"problem": "x", "answer": "204"}),
        ("svamp", {"Body": "Two apples.", "Question": "How many?", "Answer": 2.0}),
        ("bamboogle", {"Question": "Who?", "Answer": "Ann"}),
        ("mawps", {"input": "1 + 1", "target": 2}),
        ("asdiv", {"body": "Two.", "question": "How many?", "answer": "2 (apples)"}),
        ("hotpotqa", {"question": "Who?", "answer": "Ann", "type": "bridge"}),
        ("flashrag", {"question": "who is it", "golden_answers": ["Ann"]}),
        (
            "search_r1",
            {"question": "who is it", "golden_answers": ["Ann"], "data_source": "nq"},
        ),
        (
            "dapo_math_17k",
            {
                "prompt": [
                    {
                        "role": "user",
                        "content": "Solve the following math problem step by step. So.\n\nAdd 1 and 1.\n\nRemember to "
                        "put your answer on its own line.",
                    }
                ],
                "reward_model": {"ground_truth": "2"},
            },
        ),
        (
            "retool_sft",
            {
                "messages": [
                    {"role": "user", "content": "*user question:* Add 1 and 1."},
                    {"role": "assistant", "content": "So \\boxed{2}"},
                ]
            },
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_rows_are_recognised(layout, row, tmp_path):
    assert guess_layout(write(tmp_path / "rows.jsonl", row)) == layout


def test_one_question_without_its_mark_makes_no_set_of_natural_questions(tmp_path):
    rows = [
        {"question": "Who is it?", "answer": ["Ann"]},
        {"question": "who was it", "answer": ["Bob"]},
    ]
    assert guess_layout(write(tmp_path / "rows.jsonl", *rows)) == "plain"


def test_two_readings_are_asked_about(tmp_path):
    rows = [{"question": "who was it", "answer": ["Bob"]}]
    with pytest.raises(
        ValueError, match=r"rows.jsonl: the layouts plain, .*nq.* choose one by --l"
    ):
        guess_layout(write(tmp_path / "rows.jsonl", *rows))


def test_rows_of_no_layout_are_refused_with_their_columns(tmp_path):
    file = write(tmp_path / "rows.jsonl", {"text": "a", "label": 1})
    with pytest.raises(
        ValueError, match=r"rows.jsonl:1: no layout .* reads a row with label, text"
    ):
        guess_layout(file)


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rows.jsonl"):
        guess_layout(write(tmp_path / "rows.jsonl"))
