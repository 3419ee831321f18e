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
    "jaxtool.algos.aggregation",
    "jaxtool.algos.filters",
    "jaxtool.algos.gae",
    "jaxtool.algos.kl",
    "jaxtool.algos.off_policy",
    "jaxtool.algos.policy_loss",
    "jaxtool.algos.value_loss",
    "jaxtool.rewards.adaptive",
    "jaxtool.rewards.decay",
    "jaxtool.rewards.fewest_calls",
    "jaxtool.rewards.otc",
    "jaxtool.rewards.outcome",
    "jaxtool.rewards.call_cost",
    "jaxtool.rewards.terms",
)


def computes(node: ast.stmt) -> bool:
    """Whether it is an equation: a public function that gives something back, or a public dataclass
    that is called or has a method which gives a number."""
    if isinstance(node, ast.FunctionDef):
        gives_none = isinstance(node.returns, ast.Constant) and node.returns.value is None
        return node.name[0] != "_" and not gives_none
    if not isinstance(node, ast.ClassDef) or node.name[0] == "_" or not node.decorator_list:
        return False
    methods = [n for n in node.body if isinstance(n, ast.FunctionDef)]
    return any(
        method.name == "__call__"
        or (method.name[0] != "_" and method.returns and ast.unparse(method.returns) == "float")
        for method in methods
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


@pytest.mark.parametrize("module", MODULES)
def test_every_public_loss_and_reward_equation_has_a_row(module: str):
    tree = ast.parse((ROOT / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    equations = {
        f"{module}.{node.name}"
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and computes(node)
    }
    assert equations
    assert equations <= set(FUNCTIONS)


@pytest.mark.parametrize(
    ("code", "is_equation"),
    [
        ("def f(x: float) -> float: ...", True),
        ("def _f(x: float) -> float: ...", False),
        ("def check(x: float) -> None: ...", False),
        ("@dataclass\nclass A:\n  def __call__(self) -> float: ...", True),
        ("@dataclass\nclass A:\n  def cost(self) -> float: ...", True),
        ("@dataclass\nclass A:\n  def _cost(self) -> float: ...", False),
        ("class A(Protocol):\n  def __call__(self) -> float: ...", False),
        ("@dataclass\nclass A:\n  x: int", False),
    ],
)
def test_what_counts_as_an_equation(code: str, is_equation: bool):
    [node] = ast.parse(code).body
    assert computes(node) is is_equation
