"""Calls of two tools in the tables and the JSON of an evaluation, by numbers worked out by hand."""

import dataclasses
import json

import pytest
from helpers.ledgers import calling, group_of, ledger

from jaxtool.core.types import FinishReason, ToolResult, ToolStatus
from jaxtool.study import tool_tables
from jaxtool.study.comparison_tables import Comparison, comparison_report, print_tables, tables
from jaxtool.study.paired import paired
from jaxtool.train.evaluation import evaluation_of

TOOLS = ("python", "search")


def evaluation(rows, tools=TOOLS, max_lost_fraction=0.01):
    """Rows are (tools called, is right) of questions 0, 1, ...; the first two are easy; None is a lost answer."""
    groups = []
    for i, row in enumerate(rows):
        names, right = row or ("", False)
        answer = calling(*names.split(), problem=f"q{i}", level="easy" if i < 2 else "hard")
        if row is None:
            answer = dataclasses.replace(answer, finish_reason=FinishReason.INFRASTRUCTURE)
        groups.append(group_of(answer, is_correct=[right]))
    return evaluation_of(groups, max_lost_fraction, tools)


# Six searches in three answers, of which two are right; two programs in two answers, both right; 3 of 4 are right.
GRPO = [
    ("search python", True),
    ("search", True),
    ("search search search search", False),
    ("python", True),
]
# A search in one right answer, no program; 2 of 4 are right.
OTC = [("search", True), ("", True), ("", False), ("", False)]


def comparison(**variants):
    made = {name: {"greedy": rows, "sampled": rows} for name, rows in variants.items()}
    return Comparison(variants=made, views=(), max_lost_fraction=0.01)


def test_each_tool_has_its_own_line():
    """TC 2/4 and 6/4, TP 3/2 and 3/6; errors of one answer a problem, s / √4."""
    made = comparison(grpo=evaluation(GRPO), otc=evaluation(OTC))
    columns, rows = tool_tables.tool_rows(made.variants)
    assert columns[:4] == ("variant", "sampling", "tool", "answers with call")
    assert [row for row in rows if row[1] == "greedy"] == [
        ("grpo", "greedy", "python", "2", "100.0", "0.50 ± 0.29", "1.50", "0.0"),
        ("grpo", "greedy", "search", "3", "66.7", "1.50 ± 0.87", "0.50", "0.0"),
        ("otc", "greedy", "python", "0", "–", "0.00 ± 0.00", "–", "–"),
        ("otc", "greedy", "search", "1", "100.0", "0.25 ± 0.25", "2.00", "0.0"),
    ]
    columns, rows = tool_tables.tool_level_rows(made.variants, "greedy")
    assert columns == ("level", "tool", "grpo", "otc")
    assert rows == [
        ("easy", "python", "0.50", "0.00"),
        ("easy", "search", "1.00", "0.50"),
        ("hard", "python", "0.50", "0.00"),
        ("hard", "search", "2.00", "0.00"),
    ]


def test_the_tools_add_up_to_the_whole():
    whole = evaluation(GRPO).overall
    parts = whole["by_tool"].values()
    assert sum(part["tool_calls"] for part in parts) == whole["tool_calls"] == 2.0
    assert sum(1 / part["tool_productivity"] for part in parts) == pytest.approx(
        1 / whole["tool_productivity"]
    )


def test_differences_by_tool_by_hand():
    """Programs 1, 0, 0, 1 and none; searches 1, 1, 4, 0 and 1, 0, 0, 0."""
    found = paired(evaluation(OTC), evaluation(GRPO))["by_tool"]
    assert found["python"] == {
        "calls_cut": 1.0,
        "calls_difference": -0.5,
        "calls_difference_stderr": pytest.approx((1 / 3) ** 0.5 / 2),
        "productivity_gain": None,
    }
    assert found["search"]["calls_cut"] == pytest.approx(5 / 6)
    assert found["search"]["calls_difference"] == -1.25
    assert found["search"]["productivity_gain"] == pytest.approx(2 / 0.5 - 1)


def test_the_console_and_the_page_have_the_lines_and_their_meaning(capsys):
    made = comparison(grpo=evaluation(GRPO), otc=evaluation(OTC))
    print_tables(made)
    printed = capsys.readouterr().out
    assert "Test set, all levels" in printed
    assert printed.count("search") == 2 * 2 + 2 * 2
    report = comparison_report(
        made, title="t", subtitle="", headlines=(), metrics={}, views=(), config=""
    )
    report.check()
    assert tool_tables.BY_TOOL in [table.title for table in report.sections[0].tables]
    assert tool_tables.NOTE in report.sections[0].note


def test_one_tool_reads_as_ever_and_json_has_it():
    made = comparison(grpo=evaluation([("python", True), ("", True)], tools=("python",)))
    assert [table.title for table in tables(made)] == [
        "All levels",
        "By level, greedy: accuracy % / calls",
        "By level, sampled: accuracy % / calls",
    ]
    part = json.loads(json.dumps(made.as_json()))["variants"]["grpo"]["greedy"]
    assert part["by_tool"]["python"]["tool_calls"] == part["tool_calls"] == 0.5
    assert part["by_tool"]["python"]["tool_calls_stderr"] == part["tool_calls_stderr"]
    assert part["by_tool"]["python"]["tool_productivity"] == part["tool_productivity"] == 2.0
    assert part["levels"]["easy"]["by_tool"]["python"]["answers_with_call"] == 1


def test_a_variant_that_lost_too_much_has_no_figures_by_tool():
    made = comparison(grpo=evaluation(GRPO), otc=evaluation([None, *OTC[1:]]))
    rows = tool_tables.tool_rows(made.variants)[1]
    assert ("otc", "greedy", "search", "refused", "–", "–", "–", "–") in rows
    assert tool_tables.tool_level_rows(made.variants, "greedy")[1][0][-1] == "refused"


def test_validation_metrics_name_tools_only_where_there_are_several():
    metrics = evaluation(GRPO).metrics()
    assert metrics["validation/tool_calls_per_answer/search"] == 1.5
    assert metrics["validation/tool_productivity_ratio/python"] == 1.5
    assert metrics["validation/calls_per_answer"] == 2.0
    one = evaluation([("python", True)], tools=("python",)).metrics()
    assert not [name for name in one if name.startswith("validation/tool_")]


def test_lost_answers_are_in_no_figure_by_tool():
    lost = ledger("Qp", problem="lost", reason=FinishReason.INFRASTRUCTURE)
    found = evaluation_of(
        [group_of(calling("search", problem="a"), is_correct=[True]), group_of(lost)], 0.5, TOOLS
    )
    assert found.overall["by_tool"]["search"]["tool_calls"] == 1.0


def test_failed_calls_of_a_tool_are_counted_by_tool():
    """One of two searches ended in an error."""
    t = calling("search", "search", "python")
    failed = dataclasses.replace(t.tool_calls[1], result=ToolResult(status=ToolStatus.ERROR))
    t = dataclasses.replace(t, tool_calls=(t.tool_calls[0], failed, t.tool_calls[2]))
    found = evaluation_of([group_of(t, is_correct=[True])], tools=(*TOOLS, "length"))
    parts = found.overall["by_tool"]
    assert [parts[tool]["failed_fraction"] for tool in (*TOOLS, "length")] == [0.0, 0.5, None]
