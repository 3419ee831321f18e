"""docs/architecture.md shows the layers that the import contract checks, and every package says what it is."""

import ast
import re
import tomllib
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text()
PACKAGES = sorted(path.parent.name for path in (ROOT / "jaxtool").glob("*/__init__.py"))


def test_the_picture_is_the_contract():
    drawn = re.search(r"```layers\n(.*?)```", PAGE, re.DOTALL)
    assert drawn is not None
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contract = settings["tool"]["importlinter"]["contracts"][0]
    assert contract["type"] == "layers"
    assert drawn[1].strip().splitlines() == contract["layers"]


# What a package does not know, as modules that none of its modules imports.
WORDS = {
    "configuration": ("jaxtool.config", "gin"),
    "jax": ("jax", "flax"),
    "jaxtool": tuple(f"jaxtool.{name}" for name in PACKAGES if name != "config"),
    "learner": ("jaxtool.learn",),
    "loop": ("jaxtool.train",),
    "loss": ("jaxtool.algos", "jaxtool.learn"),
    "model": ("jaxtool.model",),
    "network": ("grpc",),
    "plan": ("jaxtool.plan",),
    "rewards": ("jaxtool.rewards",),
    "sampling": ("jaxtool.decode",),
    "study": ("jaxtool.study",),
    "text": ("jaxtool.data", "jaxtool.renderers"),
    "tokenizer": ("jaxtool.data",),
    "tools": ("jaxtool.tools",),
}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph("jaxtool", include_external_packages=True, cache_dir=None)


@pytest.mark.parametrize("name", PACKAGES)
def test_what_a_package_says_that_it_does_not_know_it_does_not_import(name, graph):
    doc = ast.get_docstring(ast.parse((ROOT / "jaxtool" / name / "__init__.py").read_text()))
    assert doc is not None
    sentence = re.search(r"Knows (no .*)\.$", doc)
    assert sentence is not None, f"jaxtool.{name} does not say what it does not know"
    package = f"jaxtool.{name}"
    for word in re.findall(r"no (\w+)", sentence[1]):
        for module in WORDS[word]:
            if module not in graph.modules:  # nothing imports it at all
                continue
            is_known = (
                module in graph.find_upstream_modules(package, as_package=True)
                if word == "jax"  # not through others either
                else any(
                    imported == module or imported.startswith(f"{module}.")
                    for each in graph.find_descendants(package) | {package}
                    for imported in graph.find_modules_directly_imported_by(each)
                )
            )
            assert not is_known, f"{package} says that it knows no {word}, and imports {module}"


def test_every_package_is_in_the_picture():
    for name in PACKAGES:
        assert f"| `jaxtool.{name}` |" in PAGE
