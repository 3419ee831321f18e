"""Charts as SVG: places by hand, text that stays text, gaps, colours as in the page."""

import importlib.resources
import json
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET

import pytest

from jaxtool.report.page import Curve, Series
from jaxtool.report.series_colors import COLORS, color_indices, series_colors
from jaxtool.report.svg import curve_svg, point_text, tick_text, ticks, value_ranges

TEMPLATES = importlib.resources.files("jaxtool.report") / "templates"
SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = "</text><script>alert(1)</script>\x00\ud800&"


def curve(*series, title="c"):
    return Curve(title=title, x_label="x", y_label="y", series=series)


def drawn(made):
    return ET.fromstring(curve_svg(made).encode())


def point(x, y, x_ends, y_ends, name="a"):
    return Series(name=name, xs=[x], ys=[y], x_intervals=[x_ends], y_intervals=[y_ends])


def test_a_point_and_its_bars_stand_where_they_must():
    """x in 0..10 and y in 0..1, each with 6 % of room where 0 is not its end: x to 10.6, y to 1.06.

    The plot is 640 - 44 - 16 = 580 wide from 44, and 400 - 44 - 48 = 308 high from 44.
    """
    root = drawn(curve(point(5, 0.5, (0, 10), (0, 1))))
    [dot] = root.iter(f"{SVG}circle")
    assert float(dot.get("cx")) == pytest.approx(44 + 580 * 5 / 10.6, abs=0.01)
    assert float(dot.get("cy")) == pytest.approx(44 + 308 * (1 - 0.5 / 1.06), abs=0.01)
    across, along = [path.get("d") for path in root.iter(f"{SVG}path")]
    assert across == "M44.0 202.7v8m0 -4H591.2m0 -4v8"
    assert along == "M313.6 352.0h8m-4 0V61.4m-4 0h8"


def test_axes_show_bands_and_intervals_whole():
    made = curve(
        Series(name="a", xs=[0, 2], ys=[1.0, 3.0], stderr=[0.5, 0.25]), point(5, 2, (4, 7), None)
    )
    assert value_ranges(made) == ((0, 7), (0.5, 3.25))


def test_gaps_part_a_line_and_a_curve_of_nothing_is_drawn():
    made = curve(Series(name="a", xs=[0, 1, 2, 3, 4], ys=[1, 2, None, 4, float("nan")]))
    root = drawn(made)
    assert [path.get("d").count("L") for path in root.iter(f"{SVG}path")] == [1]
    assert len(list(root.iter(f"{SVG}circle"))) == 3
    assert list(drawn(curve(Series(name="a", xs=[0], ys=[None]))).iter(f"{SVG}circle")) == []


def test_hostile_text_is_text():
    text = curve_svg(curve(point(1, 1, None, None, name=HOSTILE), title=HOSTILE))
    assert "<script" not in text
    root = ET.fromstring(text.encode())
    shown = "</text><script>alert(1)</script>\ufffd\ufffd&"
    assert root.find(f"{SVG}title").text == shown
    assert shown in [node.text for node in root.iter(f"{SVG}text")]
    assert {node.tag.removeprefix(SVG) for node in root.iter()} <= {
        *("svg", "title", "rect", "text", "line", "g", "path", "circle")
    }


def test_ticks_are_round_values_inside():
    assert ticks(0, 1, 4) == [0, 0.25, 0.5, 0.75, 1]
    assert ticks(-3, 12, 5) == [-2.5, 0, 2.5, 5, 7.5, 10]
    assert ticks(0.1, 0.4, 3) == [0.1, 0.2, 0.3, 0.4]
    assert list(map(tick_text, (1.5e6, 2e4, 0.25, -3))) == ["1.5M", "20k", "0.25", "−3"]


def test_a_point_says_its_figures():
    series = Series(
        name="otc",
        xs=[0.5],
        ys=[0.93],
        x_intervals=[(0.4, 0.6)],
        y_intervals=[None],
        labels=["2 calls"],
    )
    assert point_text(series, 0) == "otc, 2 calls: x 0.5 (0.4..0.6), y 0.93"


def test_colours_are_those_of_the_page():
    css = (TEMPLATES / "report.css").read_text()
    light = css[: css.index('data-theme="dark"')]
    assert tuple(re.findall(r"--series-\d+: (#[0-9a-f]{6})", light)) == COLORS
    assert (
        series_colors(["otc", "x"], ["grpo", "otc"])[0]
        == COLORS[color_indices(["grpo", "otc"])["otc"]]
    )


@pytest.mark.skipif(
    shutil.which("node") is None, reason="no node: colours of files and page are not compared"
)
def test_a_name_has_one_colour_in_files_and_page():
    names = [
        "base",
        "last",
        "grpo",
        "otc_grpo",
        "cold_start",
        "ReTool",
        "é",
        "😀",
        "\uffee",
        *map(str, range(9)),
    ]
    script = f"""{(TEMPLATES / "colors.js").read_text()}
console.log(JSON.stringify([...colorIndices({json.dumps(names)})]));"""
    done = subprocess.run(["node", "-"], input=script, capture_output=True, text=True, timeout=60)
    assert dict(json.loads(done.stdout)) == color_indices(names)
