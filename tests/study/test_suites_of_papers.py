"""The suites that come with the package: each command parses, each run file builds, figures agree with each other."""

import pytest
from helpers.parsing import check_parses

from docs.commands import commands
from jaxtool.config import loader
from jaxtool.data.named_sets import evaluation_data
from jaxtool.study.paper_suites import AVERAGE
from jaxtool.study.suite_files import load_suite, suite_names
from jaxtool.train import run_files

SUITES = {name: load_suite(name) for name in suite_names()}
ROWS = [
    pytest.param(suite, table, row, id=f"{suite.name}-{table.name}-{row.name}")
    for suite in SUITES.values()
    for table, row in suite.rows()
]


def test_the_four_suites_are_there():
    assert set(SUITES) == {"retool", "torl", "search_r1", "otc"}
    assert all(suite.name == name for name, suite in SUITES.items())


@pytest.mark.parametrize(("suite", "table", "row"), ROWS)
def test_the_commands_of_a_row_parse_and_lead_to_its_weights(suite, table, row, monkeypatch):
    text = "```\n" + "\n".join(suite.commands_of(row)) + "\n```"
    found = commands(text, f"suite {suite.name}")
    assert len(found) == len(suite.commands_of(row))
    assert bool(found) != bool(row.why)
    left = []
    for command in found[:-1]:
        flags = check_parses(command, monkeypatch)
        monkeypatch.undo()
        assert command.module == "experiments.train"
        files = flags.gin_file
        loader.load(loader.target_of(files[0]), files=files, params=flags.gin_param)
        init = None if flags.init_from is None else str(flags.init_from)
        assert init in (None, *left), (
            f"{row.name} starts from {init}, which no earlier command made"
        )
        left.append(str(flags.workdir))
    if found:
        flags = check_parses(found[-1], monkeypatch)
        assert flags.policy == [f"{row.name}={row.weights}"]
        assert flags.suite == suite.name
    if left:
        assert left[-1] == row.weights


def test_the_run_file_by_which_each_row_is_asked_builds():
    asked = {
        (table.gin_files_of(row), table.gin_params_of(row))
        for suite in SUITES.values()
        for table, row in suite.rows()
    }
    assert len(asked) > 15
    for files, params in sorted(asked):
        run_files.load_rl_run(files, params)


@pytest.mark.parametrize("name", ["retool", "torl"])
def test_published_sets_need_no_file(name):
    """Each has a place on the hub, by its layout."""
    for one in SUITES[name].sets.values():
        assert evaluation_data([one.layout]).sets[0].layout == one.layout


def test_the_papers_productivity_is_accuracy_over_calls_to_rounding():
    """2504.14870: TP = EM / TC on a set. A figure that was copied wrongly would show."""
    checked = 0
    for table, row in SUITES["otc"].rows():
        of = "accuracy" if "accuracy" in table.figures else "em"
        for one in table.sets:
            right, calls, tp = (row.reported(figure, one) for figure in (of, "tc", "tp"))
            if right is not None and calls is not None and tp is not None:
                checked += 1
                # Calls are printed with one digit in some tables: half a unit of it.
                low, high = right / (calls + 0.05), right / (calls - 0.05)
                assert low * 0.99 - 0.0015 <= tp <= high * 1.01 + 0.0015, (
                    table.name,
                    row.name,
                    one,
                )
    assert checked >= 60


def test_the_papers_averages_are_means_of_their_rows_unless_the_row_says_otherwise():
    for name in ("torl", "search_r1"):
        for table, row in SUITES[name].rows():
            figure = table.figures[0]
            values = [row.reported(figure, one) for one in table.sets]
            average = row.reported(figure, AVERAGE)
            if average is None or None in values or "does not add up" in row.note:
                continue
            scale = 1.0 if table.unit == "percent" else 0.01
            assert sum(values) / len(values) == pytest.approx(average, abs=0.06 * scale), row.name


def test_figures_that_everybody_knows():
    rows = {row.name: row for _, row in SUITES["retool"].rows()}
    assert rows["ReTool"].paper["accuracy"] == {"aime24": 67.0, "aime25": 49.3}
    assert rows["text_rl"].paper["accuracy"] == {"aime24": 40.0, "aime25": 36.7}
    assert rows["base"].reported("accuracy", "aime25") is None
    [main] = [t for t in SUITES["otc"].tables if t.name == "table_1"]
    methods = {row.name.rpartition("-")[0] for row in main.rows}
    assert {"OTC-PPO", "OTC-GRPO", "Search-R1-PPO", "Search-R1-GRPO", "SFT", "R1-Base"} <= methods
    code = {row.name for t in SUITES["otc"].tables if t.name == "table_2" for row in t.rows}
    assert {"OTC-GRPO-7B-code", "OTC-PPO-7B-code"} <= code
    sampling = SUITES["retool"].tables[0]
    assert (sampling.samples, sampling.temperature, sampling.top_p) == (32, 1.0, 0.7)
