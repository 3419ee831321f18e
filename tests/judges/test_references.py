"""A problem set that the run's judge cannot judge is refused with its count and the judge that fits."""

import pytest

from jaxtool.core.types import Problem
from jaxtool.judges.mathematics import Mathematics
from jaxtool.judges.references import check_references
from jaxtool.judges.text_judges import ExactMatch, MultipleChoice
from jaxtool.judges.unit_tests import UnitTests


def problems(*answers: str) -> list[Problem]:
    return [Problem(problem_id=f"set/{i}", question="", answer=a) for i, a in enumerate(answers)]


def test_words_under_mathematics_are_refused_by_count():
    found = problems("3", "Paris", "Chief of Protocol", "Yes")
    with pytest.raises(ValueError, match="3 of 4") as refusal:
        check_references(Mathematics(), found)
    assert str(refusal.value) == (
        "RlConfig.judge=Mathematics: 3 of 4 answers are words, such as 'Paris' of set/1; choose ExactMatch"
    )


def test_a_few_words_are_said_and_not_refused():
    found = problems("3", "x+1", "\\text{even}", "4")
    assert check_references(Mathematics(), found) == (
        "Mathematics: 1 of 4 answers are words, such as '\\\\text{even}' of set/2"
    )
    assert check_references(Mathematics(), problems("3")) == "Mathematics: 1 answers can be judged"


def test_letters_go_to_multiple_choice():
    check_references(MultipleChoice(), problems("A", "(B)", "C, D"))
    with pytest.raises(ValueError, match=r"1 of 2 answers are no letters of ABC.*'Paris' of set/1"):
        check_references(MultipleChoice(letters="ABC"), problems("A", "Paris"))
    with pytest.raises(ValueError, match="choose MultipleChoice"):
        check_references(UnitTests(), problems("A", "C"))
    with pytest.raises(ValueError, match="choose Mathematics"):
        check_references(MultipleChoice(), problems("17", "x+1"))


def test_every_reference_is_fit_for_exact_match():
    check_references(ExactMatch(), problems("the", "+", "Paris", "3"))
