"""Tables of a comparison say what they rest on; differences are of questions that both sides have."""

import dataclasses

import pytest
from helpers.ledgers import group_of, ledger

from jaxtool.core.types import FinishReason, ToolStatus
from jaxtool.study.comparison_tables import (
    Comparison,
    check_rests_on_enough,
    comparison_report,
    level_rows,
    lost_note,
    overall_rows,
    print_tables,
)
from jaxtool.study.paired import paired
from jaxtool.train.evaluation import evaluation_of

LOST = FinishReason.INFRASTRUCTURE


def evaluation(rows, max_lost_fraction=0.3):
    """Rows are (calls, is right) of questions 0, 1, ...; None is a lost answer."""
    groups = []
    for i, row in enumerate(rows):
        calls, right = row or (0, False)
        answer = ledger(
            "Q" + "pt" * calls + "p",
            problem=f"q{i}",
            level="easy" if i < 2 else "hard",
            calls=[ToolStatus.OK] * calls,
            reason=FinishReason.ANSWER if row else LOST,
        )
        answer = dataclasses.replace(answer, lost_to="" if row else "search")
        groups.append(group_of(answer, is_correct=[right]))
    return evaluation_of(groups, max_lost_fraction)


WHOLE = [(1, True), (1, True), (2, True), (2, False)]
NEW = [(0, True), (1, True), (1, True), (0, False)]


def comparison(max_lost_fraction=0.3, **rows):
    variants = {
        name: {way: evaluation(each, max_lost_fraction) for way in ("greedy", "sampled")}
        for name, each in rows.items()
    }
    return Comparison(variants=variants, views=(), max_lost_fraction=max_lost_fraction)


def test_differences_by_hand():
    """Calls 0, 1, 1, 0 and 1, 1, 2, 2: differences -1, 0, -1, -2 with s = √(2/3); right 3 and 3."""
    found = paired(evaluation(NEW), evaluation(WHOLE))
    assert found["calls_cut"] == pytest.approx(1 - 2 / 6)
    assert found["calls_difference"] == -1.0
    assert found["calls_difference_stderr"] == pytest.approx((2 / 3 / 4) ** 0.5)
    assert found["accuracy_difference_points"] == 0
    assert found["productivity_gain"] == pytest.approx((3 / 2) / (3 / 6) - 1)
    assert (found["questions"], found["questions_left_out"]) == (4, 0)


def test_differences_are_of_the_questions_that_both_sides_have():
    """The new one lost question 1, the old one question 2: calls 1 + 2 and 0 + 0 are left."""
    new, old = [NEW[0], None, *NEW[2:]], [*WHOLE[:2], None, WHOLE[3]]
    found = paired(evaluation(new), evaluation(old))
    assert (found["questions"], found["questions_left_out"]) == (2, 2)
    assert found["calls_cut"] == 1.0
    assert found["accuracy_difference_points"] == 0.0
    assert found["productivity_gain"] is None


def test_without_figures_on_one_side_there_is_no_difference():
    refused = evaluation([None, None, *NEW[2:]])
    assert refused.is_refused
    assert paired(refused, evaluation(WHOLE)) == {"questions": 2, "questions_left_out": 2}
    assert paired(evaluation(WHOLE), refused) == {"questions": 2, "questions_left_out": 2}


def test_tables_say_how_many_answers_they_rest_on():
    made = comparison(new=[*NEW[:3], None], old=WHOLE)
    columns, rows = overall_rows(made)
    answers = columns.index("answers")
    assert [row[answers] for row in rows] == ["3 of 4", "3 of 4", "4", "4"]
    columns, rows = level_rows(made, "greedy")
    assert [row[:2] for row in rows] == [("easy", 2), ("hard", 2)]
    assert rows[1][2] == "refused (1 lost)"
    assert rows[1][3] == "50.0 ± 50.0 / 2.00"
    assert lost_note(made).startswith("2 of 16 answers were lost (2 to search), also")
    assert lost_note(comparison(new=NEW)) == "No answer was lost."
    check_rests_on_enough(made)


def test_a_table_above_the_share_is_refused_with_what_was_lost(capsys):
    made = comparison(max_lost_fraction=0.01, new=[None, *NEW[1:]], old=WHOLE)
    print_tables(made)
    printed = capsys.readouterr().out
    assert "3 of 4" in printed
    assert "refused" in printed
    assert "2 of 16 answers were lost" in " ".join(printed.split())
    with pytest.raises(
        ValueError, match=r"new, greedy: 1 of 4 .*\(25.0%: 1 to search\); new, sampled: "
    ) as error:
        check_rests_on_enough(made)
    assert "allows 1.0%" in str(error.value)
    assert "\n" not in str(error.value)
    figures = made.as_json()["variants"]["new"]["greedy"]
    assert (figures["answers"], figures["lost"]) == (3, 1)
    assert "accuracy" not in figures


def test_the_page_has_the_counts_too():
    report = comparison_report(
        comparison(new=[*NEW[:3], None], old=WHOLE),
        title="t",
        subtitle="",
        headlines=(),
        metrics={},
        views=(),
        config="",
    )
    report.check()
    assert report.sections[0].tables[0].rows[0][2] == "3 of 4"
    assert "2 of 16 answers were lost (2 to search)" in report.sections[0].note
