"""docs/equations.md names functions and tests that exist."""

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "equations.md").read_text(encoding="utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("|") and "`" in line]
FUNCTIONS = sorted({name for row in ROWS for name in re.findall(r"`(jaxtool\.[\w.]+)`", row)})
TESTS = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)))


MODULES = (
    "jaxtool.algos.advantages",
    "jaxtool.algos.filters",
    "jaxtool.algos.gae",
    "jaxtool.algos.kl",
    "jaxtool.algos.off_policy",
    "jaxtool.algos.policy_loss",
    "jaxtool.algos.value_loss",
    "jaxtool.rewards.otc",
)


def test_every_row_names_a_function_and_a_test():
    assert len(ROWS) > 15
    for row in ROWS:
        assert "`jaxtool." in row, row
        assert "::test_" in row, row


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_function_exists_and_is_documented(name: str):
    module, _, function = name.rpartition(".")
    assert getattr(importlib.import_module(module), function).__doc__


@pytest.mark.parametrize(("path", "name"), TESTS)
def test_the_test_exists(path: str, name: str):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_every_public_loss_and_reward_equation_has_a_row():
    named = set(FUNCTIONS)
    for module in MODULES:
        tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
        public = [n.name for n in tree.body if isinstance(n, ast.FunctionDef) and n.name[0] != "_"]
        assert public
        assert {f"{module}.{name}" for name in public} <= named
