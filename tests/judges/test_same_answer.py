import pytest

from jaxtool.judges.same_answer import classes_of, same_by


@pytest.mark.parametrize(
    ("judge", "one", "other", "is_same"),
    [
        ("Mathematics", "1/2", "0.5", True),
        ("Mathematics", "x+1", "1 + x", True),
        ("Mathematics", "12", "13", False),
        ("Mathematics", "???", "???", True),
        ("ExactMatch", "The Eiffel Tower", "eiffel tower", True),
        ("TokenF1", "Eiffel Tower", "Eiffel", False),
        ("MultipleChoice", "(C)", "Option C", True),
        ("MultipleChoice", "C", "D", False),
        ("UnitTests", "f(1)", "f(1)\n", True),
        ("UnitTests", "1/2", "0.5", False),
    ],
)
def test_answers_are_the_same_by_the_rules_of_a_judge(judge, one, other, is_same) -> None:
    assert same_by(judge)(one, other) is is_same


def test_classes_are_numbered_by_first_appearance_and_nothing_is_no_class() -> None:
    answers = ["2", None, "1/2", "0.5", "2.0", None]
    assert classes_of(answers, same_by("Mathematics")) == [0, None, 1, 1, 0, None]
