"""Text of the report can be read: contrast of at least 4.5 in both themes, computed from its style sheet.

The formula is that of WCAG 2.2 ("relative luminance", "contrast ratio"); 4.5 is its level AA for text, 3 that for lines.
"""

import importlib.resources
import itertools
import re

import pytest

CSS = (importlib.resources.files("jaxtool.report") / "templates" / "report.css").read_text()
THEMES = dict(
    zip(("light", "dark"), re.findall(r":root[^{]*\{(.*?)\}", CSS, re.DOTALL), strict=False)
)
PLAIN = ("page", "surface", "raised")
TINTED = ("accent-soft", "policy", "code", "tool", "match")
# Text colours, and the backgrounds that each may stand on.
GROUNDS = {
    "ink": (*PLAIN, *TINTED),
    "ink-2": (*PLAIN, "accent-soft", "policy", "code", "tool"),
    "ink-3": PLAIN,
    "good": (*PLAIN, "accent-soft", "good-soft"),
    "bad": (*PLAIN, "accent-soft", "bad-soft"),
    "accent": PLAIN,
}


def luminance(color: str) -> float:
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def colors(theme: str) -> dict[str, str]:
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", THEMES[theme]))


def test_the_formula_gives_the_known_values():
    assert contrast("#ffffff", "#000000") == pytest.approx(21.0)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the usual near miss


@pytest.mark.parametrize("theme", THEMES)
def test_text_is_readable_on_everything_that_it_stands_on(theme):
    known = colors(theme)
    poor = [
        f"{text} on {ground}: {ratio:.2f}"
        for text, grounds in GROUNDS.items()
        for ground in grounds
        if (ratio := contrast(known[text], known[ground])) < 4.5
    ]
    assert poor == []


@pytest.mark.parametrize("theme", THEMES)
def test_lines_and_bars_are_seen(theme):
    known = colors(theme)
    drawn = [f"series-{i}" for i in range(12)]
    drawn += ["policy-edge", "tool-edge", "judge-edge", "code-edge"] if theme == "dark" else []
    assert [name for name in drawn if contrast(known[name], known["surface"]) < 3] == []


def rules() -> list[tuple[str, str]]:
    without_comments = re.sub(r"/\*.*?\*/", "", CSS, flags=re.DOTALL)
    return re.findall(r"([^{}]+)\{([^{}]*)\}", without_comments)


def test_every_text_colour_of_the_style_sheet_is_one_of_those():
    used = {
        name
        for _, body in rules()
        for name in re.findall(r"(?:^|[;\s])(?:color|fill): var\(--([\w-]+)\)", body)
    }
    assert used == set(GROUNDS) - {"accent"} or used == set(GROUNDS)
    named = [body for _, body in rules() if re.search(r"(?:^|[;\s])color: (?!var|inherit)", body)]
    assert named == []


def test_nothing_that_is_text_is_made_paler():
    """Opacity below 1 lowers the contrast that is computed above."""
    pale = [
        selector.strip()
        for selector, body in rules()
        if re.search(r"(?:^|[;\s])opacity: (0|\.)", body)
    ]
    assert set(pale) <= {
        ".button:disabled",
        ".chart .raw",
        ".chart .band",
        '.legend button[aria-pressed="false"] .dash',
    }


def test_the_policys_own_colours_differ_by_theme():
    assert all(
        a != b for a, b in itertools.zip_longest(colors("light").values(), colors("dark").values())
    )
