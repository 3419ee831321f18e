"""docs/renderers.md: its examples are read as it says, its file loads, its table names every template."""

import re

import pytest
from helpers.tool_menus import WEATHER

from docs.commands import REPOSITORY_ROOT
from jaxtool.core.calls import Call
from jaxtool.formats.base import FORMATS
from jaxtool.formats.signatures import Signatures
from jaxtool.renderers.renderer import load_renderer
from jaxtool.renderers.template_file import read_template

PAGE = (REPOSITORY_ROOT / "docs" / "renderers.md").read_text(encoding="utf-8")
EXAMPLES = dict(
    re.findall(r"^`(\w+)`[^\n]*(?:\n[^`\n][^\n]*)*\n\n```text\n(.*?)```", PAGE, re.M | re.S)
)


def test_every_format_has_an_example():
    assert EXAMPLES.keys() == FORMATS.keys()


@pytest.mark.parametrize("name", FORMATS)
def test_the_examples_are_read(name):
    text = EXAMPLES[name].removesuffix("Observation:\n")
    assert FORMATS[name].read_calls(text, Signatures([WEATHER])) == (
        Call(tool="weather", arguments={"city": "Oslo"}),
    )


def test_the_example_of_tor_l_is_read():
    (text,) = re.findall(r"````text\n(.*?)````", PAGE, re.S)
    reader = load_renderer("torl").reader()
    reader.feed(text.encode())
    assert reader.next_stop().call == Call.python("print(6 * 7)")


def test_the_file_of_the_page_loads(tmp_path):
    *_, text = re.findall(r"```toml\n(.*?)```", PAGE, re.S)
    (tmp_path / "own.toml").write_text(text)
    loaded = load_renderer(str(tmp_path / "own.toml")).with_tools([WEATHER])
    assert loaded.tool.several_calls == "refuse"
    assert '{"name": "weather"' in loaded.chat("q")[0]["content"]


def test_the_table_names_every_template_with_its_parser():
    rows = {
        name: parser
        for names, parser in re.findall(r"^\| (`[^|]*`) \| `?(\w+)`? \|", PAGE, re.M)
        for name in re.findall(r"`(\w+)`", names)
    }
    for name, parser in rows.items():
        table = read_template(name).tables.get("tool")
        assert parser == ("none" if table is None else table.get("parser", "tags")), name
    folder = REPOSITORY_ROOT / "jaxtool" / "renderers" / "templates"
    ours = {path.stem for path in folder.glob("*.toml")}
    small = {name for name in ours if name.startswith(("arithmetic", "two_shot", "facts"))}
    assert rows.keys() == ours - small
