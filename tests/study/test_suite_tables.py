"""Our figures of a row in the paper's unit, by hand; what tables and JSON say of rows that were not run."""

import dataclasses

import pytest
from helpers.answers import answer, write_evaluation

from jaxtool.rollout.answer_table import table_of
from jaxtool.rundir.answer_files import Condition
from jaxtool.study.paper_suites import PaperSuite, Row, SuiteSet, SuiteTable
from jaxtool.study.suite_rows import (
    check_is_no_suite,
    check_workdir,
    claim_workdir,
    results_of_rows,
    row_dir,
)
from jaxtool.study.suite_tables import as_json, cells, print_suite, row_result

MINE = Row(
    name="mine",
    method="tool_rl",
    model="M",
    tools=True,
    calls=2,
    weights="runs/mine",
    commands=("python -m experiments.train --gin_file run.gin --workdir runs/mine",),
    paper={"accuracy": {"a": 70.0, "average": 35.0}, "tc": {"a": 1.25}},
)
CLOSED = Row(name="closed", method="prompted", model="C", tools=False, why="no weights are public")
TABLE = SuiteTable(
    name="main",
    caption="Accuracy",
    citation="a paper, table 1",
    sets=("a", "b"),
    figures=("accuracy", "tc", "tp"),
    unit="percent",
    samples=2,
    temperature=1.0,
    top_p=1.0,
    gin_files=("run.gin",),
    rows=(MINE, CLOSED),
)
SUITE = PaperSuite(
    name="own",
    title="A title",
    paper="a paper",
    sets={"a": SuiteSet(layout="plain"), "b": SuiteSet(layout="plain")},
    tables=(TABLE,),
    file="own.toml",
)


def records(**lost):
    """Set a: right with 1 call, wrong with 3, then right twice without any. Set b: wrong twice without a call."""
    made = [("a/0", True, 1), ("a/0", False, 3), ("a/1", True, 0), ("a/1", True, 0)]
    made += [("b/0", False, 0), ("b/0", False, 0)]
    return [
        answer(
            "mine",
            sample=number % 2,
            right=right,
            calls=calls,
            problem_id=question,
            is_lost=question in lost.get("of", ()),
        )
        for number, (question, right, calls) in enumerate(made)
    ]


def result_of(found, **changed):
    table = dataclasses.replace(TABLE, **changed)
    return row_result(table, table_of(found), max_lost_fraction=0.01, seed=0)


def test_figures_by_hand_in_percent():
    """Set a: (1/2 + 1) / 2 = 75 %; 4 calls by 4 answers; 3 right over 4 calls. Set b: 0 %, and no call to divide by."""
    result = result_of(records())
    values = {key: one and one.value for key, one in result.figures.items()}
    assert values == {
        ("accuracy", "a"): 75.0,
        ("tc", "a"): 1.0,
        ("tp", "a"): 75.0,
        ("accuracy", "b"): 0.0,
        ("tc", "b"): 0.0,
        ("tp", "b"): None,
        ("accuracy", "average"): 37.5,
    }
    assert (result.answers, result.lost, result.refused) == (6, 0, ())
    for one in result.figures.values():
        assert one is None or one.low <= one.value <= one.high
    average = result.figures["accuracy", "average"]
    assert average.low < 37.5 < average.high < 51.0  # set b has no spread, and half of the weight


def test_as_fractions_calls_stay_calls():
    figures = result_of(records(), unit="fraction").figures
    found = {figure: figures[figure, "a"].value for figure in TABLE.figures}
    assert found == {"accuracy": 0.75, "tc": 1.0, "tp": 0.75}


def test_a_set_that_lost_too_many_has_no_figures_and_takes_the_average_with_it():
    result = result_of(records(of=("b/0",)))
    assert result.refused == ("b",)
    assert result.figures["accuracy", "a"].value == 75.0
    texts = {(figure, one): ours for figure, one, _, ours in cells(TABLE, MINE, result)}
    assert texts["accuracy", "b"] == texts["accuracy", "average"] == "refused"


def test_cells_say_what_is_not_reported_and_what_was_not_run():
    texts = {key[:2]: key[2:] for key in cells(TABLE, MINE, None)}
    assert texts["accuracy", "a"] == ("70.0", "–")
    assert texts["accuracy", "b"] == ("not reported", "–")
    assert texts["tc", "a"] == ("1.25", "–")
    with_ours = {key[:2]: key[2:] for key in cells(TABLE, MINE, result_of(records()))}
    assert with_ours["accuracy", "a"][1].startswith("75.0 [")
    assert with_ours["tp", "b"] == ("not reported", "–")


def test_rows_without_a_result_show_their_commands(capsys):
    print_suite(SUITE, {})
    printed = capsys.readouterr().out
    train = printed.index("  python -m experiments.train --gin_file run.gin --workdir runs/mine\n")
    evaluate = printed.index(
        "  python -m experiments.evaluate --suite own.toml --policy mine=runs/mine"
    )
    assert train < evaluate
    assert "closed: prompted, C\n  none: no weights are public\n" in printed
    print_suite(SUITE, {("main", "mine"): result_of(records())})
    assert "experiments.train" not in capsys.readouterr().out


def test_the_json_has_both_figures_and_null_where_there_is_none():
    found = as_json(SUITE, {("main", "mine"): result_of(records())})
    [table] = found["tables"]
    mine, closed = table["rows"]
    assert (mine["answers"], closed["answers"], closed["why"]) == (6, None, "no weights are public")
    figures = {(one["figure"], one["set"]): one for one in mine["figures"]}
    assert figures["accuracy", "a"]["paper"] == 70.0
    assert figures["accuracy", "a"]["ours"]["value"] == 75.0
    assert figures["accuracy", "a"]["ours"]["over"] == "questions and samples"
    assert figures["accuracy", "b"]["paper"] is None
    assert figures["tp", "b"]["ours"] is None
    assert closed["commands"] == []


def test_rows_are_found_in_the_work_directory_and_unfinished_ones_are_not_shown(tmp_path):
    claim_workdir(SUITE, tmp_path)
    folder = row_dir(tmp_path, TABLE, MINE)
    folder.mkdir(parents=True)
    write_evaluation(folder, records(), suite="own")
    found = results_of_rows(SUITE, tmp_path)
    assert found[("main", "mine")].figures["accuracy", "a"].value == 75.0
    [*_, last] = sorted(folder.rglob("*.parquet"))
    last.unlink()
    assert results_of_rows(SUITE, tmp_path) == {}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"temperature": 0.5}, r"otherwise than the suite says now \(sampling 2 samples, temperature 1"),
        ({"conditions": (Condition(sampling="sampled", has_tools=False, max_tool_calls=0),)}, "tools = True"),
        ({"conditions": (Condition(sampling="sampled", has_tools=True, max_tool_calls=1),)}, "calls = 2"),
        ({"conditions": (Condition(sampling="greedy", has_tools=True, max_tool_calls=2),)}, "sampling 2 samples"),
    ],
)  # fmt: skip
def test_answers_that_were_asked_otherwise_are_refused(tmp_path, changed, message):
    folder = row_dir(tmp_path, TABLE, MINE)
    folder.mkdir(parents=True)
    write_evaluation(folder, records(), suite="own", **changed)
    with pytest.raises(ValueError, match=message) as caught:
        results_of_rows(SUITE, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_directory_of_another_suite_or_of_no_suite_is_refused(tmp_path):
    claim_workdir(SUITE, tmp_path / "own")
    claim_workdir(SUITE, tmp_path / "own")
    other = dataclasses.replace(SUITE, title="Another title")
    with pytest.raises(
        ValueError, match=r"records of another suite, own \(A title\): choose another"
    ):
        check_workdir(other, tmp_path / "own")
    (tmp_path / "plain").mkdir()
    write_evaluation(tmp_path / "plain", records())
    with pytest.raises(ValueError, match="holds an evaluation that is no suite's"):
        claim_workdir(SUITE, tmp_path / "plain")
    with pytest.raises(ValueError, match=r"holds the rows of a suite: give --suite as well"):
        check_is_no_suite(tmp_path / "own")
    check_is_no_suite(tmp_path / "plain")
    (tmp_path / "own" / "suite.json").write_text("{")
    with pytest.raises(ValueError, match="another suite, that cannot be read"):
        check_workdir(SUITE, tmp_path / "own")
