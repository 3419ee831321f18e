"""docs/faults.md: every drill that it names is a test, every test of tests/drills is named, every row is whole."""

import re

import pytest

from jaxtool.config.loader import REPOSITORY_ROOT

TEXT = (REPOSITORY_ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TEXT.partition("## Drills")[2].splitlines()
    if line.startswith("| ") and "::" in line
]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_every_row_says_what_happens_and_names_a_test_that_is_there(row):
    fault, done, said, drill = row
    assert fault
    assert done
    assert said
    file, _, name = drill.strip("`").partition("::")
    assert f"def {name}(" in (REPOSITORY_ROOT / file).read_text(encoding="utf-8")


def test_every_drill_is_in_the_table():
    files = sorted((REPOSITORY_ROOT / "tests" / "drills").glob("test_*.py"))
    assert len(files) >= 4
    tests = {
        f"tests/drills/{file.name}::{name}"
        for file in files
        for name in re.findall(r"^def (test_\w+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert tests == {row[3].strip("`") for row in ROWS if "tests/drills/" in row[3]}
