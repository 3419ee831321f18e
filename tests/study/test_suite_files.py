"""A suite's file: read whole, and what is wrong in it is one line with file, line, key and remedy."""

import re

import pytest

from docs.commands import REPOSITORY_ROOT
from jaxtool.study.suite_files import load_suite

GOOD = """
title = "A title"
paper = "a paper"

[sets.aime24]
layout = "aime24"

[[tables]]
name = "main"
caption = "Accuracy"
citation = "a paper, table 1"
sets = ["aime24"]
figures = ["accuracy", "tc"]
unit = "percent"
samples = 4
temperature = 1
gin_files = ["run.gin"]

[[tables.rows]]
name = "base"
method = "prompted"
model = "M"
tools = false
weights = "models/M"

[[tables.rows]]
name = "mine"
method = "tool_rl"
model = "M"
tools = true
calls = 3
weights = "runs/mine"
commands = ["python -m experiments.train --gin_file run.gin --workdir runs/mine"]
paper.accuracy = { aime24 = 40, average = 40.5 }
"""


def loaded(folder, text):
    path = folder / "own.toml"
    path.write_text(text)
    return load_suite(str(path))


def test_a_file_is_read_whole(tmp_path):
    suite = loaded(tmp_path, GOOD)
    [table] = suite.tables
    assert (suite.name, suite.title, table.samples, table.temperature) == ("own", "A title", 4, 1.0)
    assert (table.top_p, table.sampling) == (1.0, "4 samples, temperature 1, top-p 1")
    base, mine = table.rows
    assert mine.reported("accuracy", "aime24") == 40.0
    assert mine.reported("tc", "aime24") is None
    assert base.paper == {}
    assert table.columns == (
        *(("accuracy", "aime24"), ("tc", "aime24")),
        ("accuracy", "average"),
    )
    assert suite.commands_of(base) == (
        f"python -m experiments.evaluate --suite {tmp_path}/own.toml --policy base=models/M "
        "--workdir runs/eval_own",
    )
    assert suite.commands_of(mine)[0] == mine.commands[0]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('title = "A title"', "", "own.toml:1: the suite.title is missing: write it, a str"),
        ("samples = 4", 'samples = "4"', "own.toml:8: tables[0].samples: expected int, got '4' (str)"),
        ("samples = 4", "sample = 4", "own.toml:8: tables[0] has no key 'sample': did you mean 'samples'?"),
        ("samples = 4", "samples = 0", "own.toml:8: tables 'main': samples must be >= 1"),
        ("temperature = 1", "temperature = 0", "is greedy (temperature 0): all answers to a question are equal"),
        ('unit = "percent"', 'unit = "per mille"', "own.toml:8: tables[0].unit: expected 'percent' or 'fraction'"),
        ('sets = ["aime24"]', 'sets = ["aime25"]', "own.toml:8: tables 'main'.sets names 'aime25', of which there is no [sets.aime25]"),
        ('layout = "aime24"', 'layout = "aime"', "own.toml:5: sets.aime24.layout='aime' is no layout: there are plain"),
        ('layout = "aime24"', 'layot = "aime24"', "own.toml:5: sets.aime24 has no key 'layot': did you mean 'layout'?"),
        ("[sets.aime24]\nlayout", "[set.aime24]\nlayout", "own.toml:1: sets is missing: write [sets.NAME]"),
        ("tools = true", "tools = 1", "own.toml:26: tables[0].rows[1].tools: expected bool, got 1 (int)"),
        ('method = "tool_rl"', 'method = "rl"', "own.toml:26: tables[0].rows[1].method: expected 'prompted' or"),
        ("calls = 3", "calls = 0", "own.toml:26: row 'mine' of 'main': calls=0 needs tools = true and must be >= 1"),
        ("paper.accuracy", "paper.em", "own.toml:26: row 'mine' of 'main'.paper.em: the table's figures are accuracy, tc"),
        ("aime24 = 40,", "aime = 40,", "paper.accuracy.aime: the table's sets are aime24, and average"),
        ("aime24 = 40,", 'aime24 = "-",', "rows[1].paper: key 'accuracy': key 'aime24': expected float, got '-'"),
        ('weights = "runs/mine"', "", "own.toml:26: row 'mine' of 'main' needs weights, or a line in `why`"),
        ('name = "mine"', 'name = "base"', "own.toml:26: row 'base' of 'main': a row needs a name of its own in its table"),
        ('name = "mine"', 'name = "a/b"', "own.toml:26: a policy cannot be called 'a/b'"),
        ("[[tables.rows]]", "[[tables.row]]", "own.toml:8: tables[0] has no rows: write [[tables.rows]] below it"),
        ("title =", "title", "own.toml: not TOML: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_its_place(tmp_path, old, new, message):
    assert old in GOOD
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        loaded(tmp_path, GOOD.replace(old, new))
    assert "\n" not in str(caught.value)


def test_one_name_is_one_policy_in_all_tables(tmp_path):
    """The same row may be asked in two tables; with other weights it is another policy."""
    table = "[[tables]]" + GOOD.partition("[[tables]]")[2].replace(
        'name = "main"', 'name = "again"'
    )
    assert loaded(tmp_path, f"{GOOD}\n{table}").row_names == ("base", "mine")
    other = table.replace('weights = "runs/mine"', 'weights = "runs/other"')
    with pytest.raises(
        ValueError, match=r":\d+: row 'mine' of 'again' has other weights or commands"
    ):
        loaded(tmp_path, f"{GOOD}\n{other}")


def test_a_suite_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    with pytest.raises(
        FileNotFoundError, match="no suite 'retol': there are otc, retool, search_r1"
    ):
        load_suite("retol")
    with pytest.raises(FileNotFoundError, match=r"no suite at .*none.toml: name a TOML file"):
        load_suite(str(tmp_path / "none.toml"))


def test_a_policy_that_is_no_row_is_refused_with_the_nearest(tmp_path):
    suite = loaded(tmp_path, GOOD)
    suite.check_names({"mine": "x"})
    with pytest.raises(ValueError, match=r"has no row 'mines': did you mean 'mine'\? its rows are"):
        suite.check_names({"mines": "x"})


def test_the_file_of_the_page_is_a_suite(tmp_path):
    page = (REPOSITORY_ROOT / "docs" / "suites.md").read_text(encoding="utf-8")
    [text] = re.findall(r"```toml\n(.*?)```", page, re.S)
    suite = loaded(tmp_path, text)
    assert [row.name for _, row in suite.rows()] == ["base", "mine", "closed"]
