"""The site of docs/: every page is in its navigation, links are set right, and mkdocs builds it without a warning."""

import importlib.util
import os
import re
import subprocess
import sys

import pytest
import yaml

from docs import site_hooks
from jaxtool.config.loader import REPOSITORY_ROOT


class Settings(yaml.SafeLoader):
    """Reads mkdocs.yml, whose tag for a Python function means nothing to a safe reader."""


Settings.add_multi_constructor("tag:yaml.org,2002:python/", lambda *_: None)


def nav_pages(nav):
    for entry in nav:
        for value in entry.values() if isinstance(entry, dict) else [entry]:
            yield from nav_pages(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_navigation_once():
    text = (REPOSITORY_ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = list(nav_pages(yaml.load(text, Settings)["nav"]))
    written = {path.name for path in (REPOSITORY_ROOT / "docs").glob("*.md")}
    assert len(listed) == len(set(listed))
    assert set(listed) == written | set(site_hooks.PAGES) | {"commands.md"}, (
        "put a new page into nav of mkdocs.yml, where a reader needs it"
    )
    assert not [path for path in (REPOSITORY_ROOT / "docs").rglob("*/*.md")]


def test_the_reference_has_every_module_once():
    shown = [name for package in site_hooks.packages() for name in site_hooks.modules(package)]
    assert len(shown) == len(set(shown)) > 300
    assert {"jaxtool.algos.gae", "jaxtool.tools.sandbox_client"} < set(shown)
    page = site_hooks.reference("jaxtool.algos")
    assert page.startswith("# jaxtool.algos\n\nAdvantages and losses")
    assert "\n::: jaxtool.algos.gae\n" in page


def test_the_page_of_commands_has_every_command():
    page = site_hooks.commands()
    for path in (REPOSITORY_ROOT / "jaxtool" / "cli").glob("*.py"):
        if "\ndef main(" in path.read_text(encoding="utf-8") and path.stem != "dispatch":
            assert f"\n## {path.stem}\n" in page


@pytest.mark.parametrize(
    ("link", "folder", "to"),
    [
        ("docs/data.md", "", "data.md"),
        ("gin_configs/README.md", "", "gin_configs.md"),
        ("../gin_configs/README.md#x", "docs", "gin_configs.md#x"),
        ("../docs/search.md", "gin_configs", "search.md"),
        ("launch/xpk.sh", "docs", "launch/xpk.sh"),
        ("https://a.b/c", "docs", "https://a.b/c"),
        ("#here", "docs", "#here"),
        ("plans/", "docs", None),
        ("attacks", "sandbox_server", None),
        ("none.md", "docs", None),
    ],
)
def test_links_lead_to_pages_and_files_of_the_site(link, folder, to):
    assert site_hooks.target(link, folder) == to


def test_a_list_after_a_line_of_text_gets_an_empty_line_and_code_stays():
    text = "Means:\n- one\n  goes on\n- two\n```python\nx = [1]\n- [a](b)\n```\n1. [run](../README.md)\n"
    assert site_hooks.for_site(text, "docs") == (
        "Means:\n\n- one\n  goes on\n- two\n```python\nx = [1]\n- [a](b)\n```\n\n1. [run](index.md)\n"
    )


def test_indented_blocks_of_docstrings_keep_their_lines():
    griffe = pytest.importorskip("griffe", reason="the extra docs is not installed")
    assert griffe
    from docs.site_docstrings import with_blocks

    text = "As here:\n\n  a 1\n  b 2\n\n1. first,\n   goes on\n\nArgs:\n  x: one."
    assert with_blocks(text) == (
        "As here:\n\n```text\n  a 1\n  b 2\n```\n\n1. first,\n   goes on\n\nArgs:\n  x: one."
    )


def test_the_site_builds_without_a_warning(tmp_path):
    if not all(map(importlib.util.find_spec, ("mkdocs", "material", "mkdocstrings_handlers"))):
        pytest.skip("the extra docs is not installed: pip install -e '.[docs]'")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)],
        cwd=REPOSITORY_ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": str(REPOSITORY_ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-30:])
    pages = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("index.html")}
    assert {"index.html", "pods/index.html", "reference/jaxtool.algos/index.html"} <= pages
    shown = (tmp_path / "reference" / "jaxtool.algos" / "index.html").read_text(encoding="utf-8")
    # A signature with its shapes, out of the sources.
    assert re.search(r"advantages", shown)
    start = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="your_run/"' in start
    assert 'src="trajectory.png"' in start
