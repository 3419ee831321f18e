"""Repeated questions and rows, and evaluation questions, as reasons why a row falls out."""

from jaxtool.cold_start.repeated import contamination, repetitions
from jaxtool.data.contamination import EvaluationQuestion, EvaluationQuestions


def reasons(rows, **settings):
    faults = repetitions(rows, **({"per_question": 1, "near": None} | settings))
    return ["" if fault is None else fault.reason for fault in faults]


def test_rows_and_questions_that_were_there_before():
    rows = [
        ("Q one?", "a", "f:1"),
        ("q two?", "a", "f:2"),
        ("Q  one?", "b", "f:3"),
        ("Q one?", "a", "f:4"),
    ]
    assert reasons(rows) == ["", "", "same_question", "same_row"]
    assert reasons(rows, per_question=2) == ["", "", "", "same_row"]


def test_a_question_with_one_other_word_at_its_end_is_nearly_the_same():
    long = "In a village there are twelve houses with four windows each and a church with nine more"
    rows = [
        (f"{long} today?", "a", "f:1"),
        (f"{long} tomorrow?", "b", "f:2"),
        ("Else?", "c", "f:3"),
    ]
    assert reasons(rows, near=0.7) == ["", "near_question", ""]
    assert reasons(rows, near=0.95) == ["", "", ""]
    [_, fault, _] = repetitions(rows, per_question=1, near=0.7)
    assert "f:1" in str(fault)


def test_a_question_of_an_evaluation_set_is_named_as_the_reason():
    asked = "Find the number of ordered pairs of integers such that their product is 2024."
    known = EvaluationQuestions([EvaluationQuestion(where="aime.jsonl:2", question=asked)])
    fault = contamination(asked, known)
    assert fault is not None
    assert fault.reason == "in_evaluation"
    assert "100% of the words of aime.jsonl:2, such as 'find the number" in str(fault)
    assert contamination("What is 1+1?", known) is None
