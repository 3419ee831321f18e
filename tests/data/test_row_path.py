"""Paths into a row: what they lead to, what they are refused for, and what the message says is there."""

import re

import pytest

from jaxtool.data.row_path import as_written, row_path

ROW = {
    "prompt": [{"role": "system", "content": "s"}, {"role": "user", "content": "6*7?"}],
    "reward_model": {"ground_truth": "42", "style": None},
    "a.b": {"c d": 1},
    "n": 7,
    "nothing": None,
}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("n", 7),
        ("reward_model.ground_truth", "42"),
        ("prompt[-1].content", "6*7?"),
        ("prompt[0].role", "system"),
        ("prompt[1]", {"role": "user", "content": "6*7?"}),
        ("['a.b']['c d']", 1),
        ('["a.b"]', {"c d": 1}),
        ("nothing", None),
        ("nothing?", None),
        ("n?", 7),
        ("absent?", None),
        ("reward_model.absent?", None),
        ("reward_model.style.deeper?", None),
        ("prompt[2].content?", None),
        ("n.deeper?", None),
    ],
)
def test_a_path_leads_to_its_value(path: str, value: object):
    assert row_path(path).value(ROW, "f:1") == value


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("answer", "f:1: no answer: the row has 'prompt', 'reward_model', 'a.b', 'n', 'nothing'"),
        ("reward_model.target", "no reward_model.target: reward_model has 'ground_truth', 'style'"),
        ("reward_model[0]", "reward_model has 'ground_truth', 'style'; an index needs a list"),
        ("prompt.content", "prompt is a list of 2: write prompt[0].content or [-1]"),
        ("prompt.0.content", "prompt is a list of 2: write prompt[0].content"),
        ("prompt[2].content", "no prompt[2].content: prompt is a list of 2"),
        ("prompt[-3]", "no prompt[-3]: prompt is a list of 2"),
        ("prompt[1].text", "prompt[1] has 'role', 'content'"),
        ("n.value", "n is '7'"),
        ("nothing.value", "nothing is null"),
        ("a.b", "the row has that name as a whole: write ['a.b']"),
    ],
)
def test_what_is_there_instead_is_said(path: str, message: str):
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        row_path(path).value(ROW, "f:1")
    assert "\n" not in str(caught.value)


def test_columns_of_a_table_are_named_although_they_were_not_read():
    with pytest.raises(ValueError, match="the row has 'question', 'answer', 'id'"):
        row_path("problem").value({"answer": "1"}, "f: row 1", ("question", "answer", "id"))


@pytest.mark.parametrize(
    "text", ["", "?", ".a", "a.", "a..b", "a[x]", "a[0]b", "[0].a", "a b", "a[", "a[*]", "a['']"]
)
def test_what_is_no_path_is_refused(text: str):
    with pytest.raises(ValueError, match="is no path into a row"):
        row_path(text)


@pytest.mark.parametrize("text", ["a", "a.b[-1].c", "['x y'][0].d"])
def test_steps_are_written_as_they_were_read(text: str):
    assert as_written(row_path(text).steps) == text
    assert row_path(text).column == row_path(text).steps[0]
