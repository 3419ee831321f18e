"""The colour of a line: it goes by its name, as in the page (templates/colors.js), so that files and pages agree."""

from collections.abc import Sequence

COLORS = (  # of templates/report.css, light
    *("#2b66d9", "#d9640f", "#12876a", "#9a3fb8", "#c2334d", "#5d6675"),
    *("#8a6d00", "#0a86a8", "#6b4fd8", "#b0307e", "#4f7d12", "#a3512b"),
)
_32 = 0xFFFFFFFF


def series_colors(names: Sequence[str], variants: Sequence[str]) -> list[str]:
    """Of each line: that of its variant, else that of its own name among the lines of the chart."""
    of_variants, own = color_indices(variants), color_indices(names)
    return [COLORS[of_variants.get(name, own[name])] for name in names]


def color_indices(names: Sequence[str]) -> dict[str, int]:
    """Numbers of names that stand together; of two with one number the later in the alphabet takes the next free one."""
    found: dict[str, int] = {}
    taken: set[int] = set()
    for name in sorted(set(names), key=lambda name: name.encode("utf-16-be", "surrogatepass")):
        index = _color_index(name)
        tries = 0
        while index in taken and tries < len(COLORS):
            index, tries = (index + 1) % len(COLORS), tries + 1
        taken.add(index)
        found[name] = index
    return found


def _color_index(name: str) -> int:
    """FNV-1a over the characters, stirred; the salt is that of colors.js."""
    value = 0x811C9DC5
    for char in f"apy{name}":
        value = ((value ^ ord(char)) * 0x01000193) & _32
    value = ((value ^ (value >> 15)) * 0x5BD1E995) & _32
    return (value ^ (value >> 13)) % len(COLORS)
