"""The figures of docs/results.md and README are those of docs/results/*.json.gz."""

import re

import pytest

from docs import seven_seeds
from docs.seven_seeds import COLD, GRPO, LONG_GRPO, OTC, PAPER, cut, percent, points, signed
from jaxtool.config.loader import REPOSITORY_ROOT

HAND = {
    "new": {"greedy": {"accuracy": [0.9, 0.8], "tool_calls": [0.5, 0.25]}},
    "old": {"greedy": {"accuracy": [0.8, 0.8], "tool_calls": [1.0, 1.0]}},
}


def text_of(name):
    return " ".join((REPOSITORY_ROOT / name).read_text("utf-8").split())


def test_the_page_holds_what_is_computed():
    page = seven_seeds.PAGE.read_text("utf-8")
    assert set(re.findall(r"<!-- seven_seeds: (\w+) -->", page)) == set(seven_seeds.PARTS)
    assert seven_seeds.filled(page) == page, "run python -m docs.seven_seeds"


def test_a_changed_figure_is_put_right():
    page = "a\n<!-- seven_seeds: lead -->\n- 99 % fewer\n<!-- end -->\nb\n"
    filled = seven_seeds.filled(page)
    assert "99 %" not in filled
    assert seven_seeds.lead() in filled
    assert (filled[:2], filled[-2:]) == ("a\n", "b\n")


def test_differences_by_hand():
    """t(1) = 12.706: 5 ± 12.706 · 5; cuts 50 and 75 %; right answers a call 1.8 / 0.8 and 3.2 / 0.8."""
    assert points(HAND, "new", "old", "greedy") == pytest.approx([10, 0])
    assert signed(points(HAND, "new", "old", "greedy")) == "+5.0 (-58.5..+68.5)"
    assert cut(HAND, "new", "old", "greedy") == [50, 75]
    assert percent([50, 75]) == "62 % (-96..221)"
    gains = seven_seeds.productivity_gain(HAND, "new", "old", "greedy")
    assert gains == pytest.approx([125, 300])


def test_each_processor_has_seven_seeds_of_its_own():
    first, second = seven_seeds.draws().values()
    for variant in seven_seeds.SHOWN:
        for way in ("greedy", "sampled"):
            one, other = (draw[variant][way]["accuracy"] for draw in (first, second))
            assert len(one) == len(other) == 7
            assert one != other


def test_the_readme_has_the_computed_figures():
    readme = text_of("README.md")
    first, second = seven_seeds.draws().values()
    for draw in (first, second):
        for shown in (
            percent(cut(draw, OTC, LONG_GRPO, "greedy")).split(" %")[1],
            signed(points(draw, OTC, LONG_GRPO, "greedy")),
            signed(points(draw, PAPER, GRPO, "sampled")),
            signed(points(draw, GRPO, COLD, "greedy")),
        ):
            assert shown in readme
    cuts = (percent(cut(draw, PAPER, GRPO, "sampled")).split(" (")[0] for draw in (first, second))
    assert "at {} and {} fewer calls".format(*cuts) in readme


def test_no_ablation_is_significant():
    found = seven_seeds.corrected()
    assert len(found) == 38
    assert min(found.values()) == pytest.approx(0.264, abs=1e-3)


@pytest.mark.parametrize("document", ["docs/results.md", "docs/experiments.md", "README.md"])
def test_what_was_refuted_is_not_claimed(document):
    text = text_of(document)
    assert "The seed decides, not the setting" not in text
    assert "responses weigh more in a token mean." not in text
    assert "gives long answers more weight" not in text
