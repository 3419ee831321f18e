"""docs/behaviour.md names functions and tests that exist, all rules, and numbers that are right."""

import ast
import importlib
import re
from pathlib import Path

import pytest
from helpers.behaviour_answers import CODE_ANSWERS as ANSWERS
from helpers.behaviour_answers import WITH, WITHOUT

from jaxtool.behaviour import code_use, offloading
from jaxtool.behaviour.answers import right, wrong
from jaxtool.behaviour.corrections import is_version, overlap
from jaxtool.behaviour.program_features import MAX_CHARS
from jaxtool.behaviour.purposes import OTHER, RULES, UNPARSED, purpose_of

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "behaviour.md").read_text(encoding="utf-8")
MODULES = sorted(
    path.stem for path in (ROOT / "jaxtool" / "behaviour").glob("*.py") if path.stem != "__init__"
)
FUNCTIONS = sorted(set(re.findall(rf"`((?:{'|'.join(MODULES)})\.\w+)`", TEXT)))
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


def test_the_page_names_many():
    assert len(FUNCTIONS) > 25
    assert len(TESTS) > 20


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_function_exists(name):
    module, function = name.split(".")
    assert hasattr(importlib.import_module(f"jaxtool.behaviour.{module}"), function)


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_each_test_exists(path, name):
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_the_purposes_are_the_rules():
    section = TEXT.split("## Purposes of programs")[1].split("\n## ")[0]
    rows = dict(re.findall(r"^\| ([\w ]+) \| ([A-Z].*) \|$", section, re.MULTILINE))
    assert rows.pop(OTHER)
    assert f"{MAX_CHARS:,}" in rows.pop(UNPARSED)
    assert list(rows.items()) == list({rule.purpose: rule.meaning for rule in RULES}.items())


def test_purposes_of_the_examples():
    found = dict(
        re.findall(r"`([^`]+)`\s+is (enumeration and search|verification|calculation)", TEXT)
    )
    assert len(found) == 3
    for program, purpose in found.items():
        assert purpose_of(program) == purpose


def test_numbers_of_the_examples():
    """The page's answers are those of the tests."""
    measured = {
        "Code ratio 3/4": code_use.code_ratio(ANSWERS) == 3 / 4,
        "Tokens 25 with the tool's, 20 without": (
            (code_use.response_tokens(ANSWERS), code_use.policy_tokens(ANSWERS)) == (25, 20)
        ),
        "Lines 5/3": code_use.lines_per_answer(ANSWERS) == 5 / 3,
        "5/4 = 1.25 a program": code_use.lines_per_program(ANSWERS) == 5 / 4,
        "pass ratio is 2/4": code_use.pass_ratio(ANSWERS) == 2 / 4,
        "1/2 in right and 1/2 in wrong": (
            code_use.pass_ratio(right(ANSWERS)) == code_use.pass_ratio(wrong(ANSWERS)) == 1 / 2
        ),
        "Executed: 4/6": code_use.executed_ratio(ANSWERS) == 4 / 6,
        "= 0.73": round(overlap("print(x)", "x = 7\nprint(x)"), 2) == 0.73,
        "(4 + 6) = 0.6": overlap("print(x)", "print(7 * 6)") == 0.6,
    }
    found = offloading.offloading(WITH, WITHOUT)
    measured["2 of 5 calls, 0.4"] = found is not None and found.needless == 0.4
    for said, is_so in measured.items():
        assert said in " ".join(TEXT.split()), said
        assert is_so, said
    assert is_version("print(x)", "x = 7\nprint(x)")
