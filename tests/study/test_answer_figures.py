import pytest
from helpers.answers import answer

from jaxtool.judges.same_answer import same_by
from jaxtool.study.answer_figures import figures_of, table_of

SAME = same_by("Mathematics")


def _records():
    return [
        answer(question=q, sample=s, right=(q + s) % 3 == 0, calls=(q * s) % 3)
        for q in range(6)
        for s in range(4)
    ]


def test_every_figure_lies_in_its_interval() -> None:
    figures = figures_of(table_of(_records()), SAME)
    assert (figures.questions, figures.samples, figures.answers, figures.lost) == (6, 4, 24, 0)
    assert set(figures.pass_at) == set(figures.majority_at) == {1, 2, 4}
    assert figures.pass_at[1].value == pytest.approx(figures.accuracy.value)
    assert figures.tool_productivity is not None
    whole = [figures.accuracy, figures.accuracy_of_these, figures.tool_calls]
    for figure in (*whole, figures.tool_productivity, *figures.pass_at.values()):
        assert figure.low <= figure.value <= figure.high
    assert figures.accuracy.over == "questions and samples"
    assert figures.accuracy_of_these.over == "samples"
    assert figures.pass_at[4].over == figures.majority_at[4].over == "questions"


def test_without_calls_there_is_no_productivity_and_no_interval_of_it() -> None:
    figures = figures_of(table_of([answer(right=True)]), SAME)
    assert figures.tool_productivity is None
    assert figures.tool_productivity_of_right is None
    assert figures.tool_calls.value == 0.0


def test_a_k_above_the_samples_and_no_answer_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="k=8"):
        figures_of(table_of(_records()), SAME, ks=(1, 8))
    with pytest.raises(ValueError, match="no answer came back"):
        figures_of(table_of([answer(is_lost=True)]), SAME)
