"""Every metric that the code writes is explained once, and docs/metrics.md says it."""

import ast
import re
from pathlib import Path

from docs import metrics_table
from jaxtool.rundir.metric_table import METRICS, meaning_of

ROOT = Path(__file__).parents[2]
AREAS = {name.split("/")[0] for name in METRICS}
# A metric's name, or one with a part that differs.
NAME = re.compile(r"[a-z]+/[a-z0-9_{}]+(/\{\})?")


def names_in(source: str) -> set[str]:
    """String literals and f-strings that look like metrics of a known area; parts of f-strings are {}."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.JoinedStr):
            text = "".join(v.value if isinstance(v, ast.Constant) else "{}" for v in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            text = node.value
        else:
            continue
        if NAME.fullmatch(text) and text.split("/")[0] in AREAS:
            found.add(text)
    return found


def test_names_are_found_in_code():
    source = "metrics = {'reward/mean': 1, f'tools/failed_fraction/{status}': 2, 'a/b': 3}"
    assert names_in(source) == {"reward/mean", "tools/failed_fraction/{}"}


def test_every_metric_of_the_code_is_in_the_table_and_the_other_way_round():
    written: set[str] = set()
    for path in (ROOT / "jaxtool").rglob("*.py"):
        if path.name != "metric_table.py":
            written |= names_in(path.read_text())
    written = {name for name in written if not name.endswith(("_", "/"))}  # beginnings of f-strings
    # One f-string writes both.
    written.discard("tools/calls_per_{}_answer")
    spelled = {re.sub(r"\{.*?\}", "{}", name) for name in METRICS}
    spelled -= {"tools/calls_per_correct_answer", "tools/calls_per_wrong_answer"}
    assert written == spelled


def test_the_page_is_the_table():
    assert (ROOT / "docs" / "metrics.md").read_text() == metrics_table.text()


def test_a_metric_with_a_part_means_what_the_table_says_of_all_parts():
    assert (
        meaning_of("level/calls_per_answer/two digit/hop")
        == METRICS["level/calls_per_answer/{level}"]
    )
    assert meaning_of("reward/mean") == METRICS["reward/mean"]
    assert meaning_of("reward/mean/hard") == meaning_of("mine/own") == ""


def test_every_meaning_can_be_read_alone():
    """The report shows it below one curve."""
    vague = [name for name, text in METRICS.items() if text.startswith(("The same", "How many"))]
    assert vague == []
