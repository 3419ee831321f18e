"""A curve of a report as an SVG file: lines with bands, and points with intervals on both axes.

Written with the XML library of Python, which escapes every text. A plotting library would bring more than it gives here:
matplotlib is 30 MB, turns text into outlines unless told otherwise, and draws nothing that these two kinds of picture
need. The page draws the same pictures in the browser (templates/charts.js), where they can be pointed at; colours and
tick marks are the same. Fonts are the reader's; nothing is loaded.

Not covered: dark colours, smoothing.
"""

import math
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Sequence
from typing import Any

from jaxtool.report.page import Curve, Series
from jaxtool.report.series_colors import series_colors
from jaxtool.report.table_files import printable

WIDTH, HEIGHT = 640, 400  # of the whole, the legend's lines not counted
_INK, _INK_2, _LINE, _AXIS = "#1b1d21", "#565c66", "#e3e4e1", "#858b95"
_FEW_POINTS = 16  # shown as dots
_CHAR = 6.4  # pixels of a character of 11 pixels
_TOP, _RIGHT, _BOTTOM = 44, 16, 48
_LEGEND_LINE = 18
Point = tuple[float, float]


def curve_svg(curve: Curve, variants: Sequence[str] = ()) -> str:
    """The curve as the text of an SVG file.

    Args:
      variants: names of a report's variants: each has its own colour in all pictures.
    """
    colors = series_colors([series.name for series in curve.series], variants)
    legend = _legend_lines(curve)
    height = HEIGHT + _LEGEND_LINE * len(legend)
    root = ET.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {WIDTH} {height}",
            "width": str(WIDTH),
            "height": str(height),
            "font-family": "ui-sans-serif, Helvetica, Arial, sans-serif",
            "font-size": "11",
        },
    )
    ET.SubElement(root, "title").text = printable(curve.title)
    ET.SubElement(root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
    _text(root, 16, 20, curve.title, {"font-size": "14", "font-weight": "600", "fill": _INK})
    _text(root, 16, 36, curve.y_label, {"fill": _INK_2})
    plot = _Plot(curve)
    plot.draw_axes(root)
    for series, color in zip(curve.series, colors, strict=True):
        plot.draw(root, series, color)
    for number, line in enumerate(legend):
        x = 16.0
        for index in line:
            place = HEIGHT + _LEGEND_LINE * number + 8
            _sub(root, "rect", x=x, y=place - 8, width=10, height=10, fill=colors[index], rx=2)
            _text(root, x + 15, place + 1, curve.series[index].name, {"fill": _INK})
            x += _entry_width(curve.series[index].name)
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round values inside low..high, as near to `count` of them as steps of 1, 2, 2.5 and 5 allow.

    Example: ticks(0, 1, 4) is 0, 0.25, 0.5, 0.75, 1.
    """
    span = high - low or 1.0
    power = 10.0 ** math.floor(math.log10(span / count))
    step = min(
        (factor * power for factor in (1, 2, 2.5, 5, 10)),
        key=lambda step: abs(math.log(span / step / count)),
    )
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{k * step:.12g}") for k in range(first, last + 1)]


def tick_text(value: float) -> str:
    """`1.5M`, `20k`, `0.25`, `−3`."""
    size = abs(value)
    if size >= 1e6:
        text = f"{value / 1e6:.6g}M"
    elif size >= 1e4:
        text = f"{value / 1e3:.6g}k"
    else:
        text = f"{value:.6g}"
    return text.replace("-", "−")


def value_ranges(curve: Curve) -> tuple[Point, Point]:
    """What each axis must show, bands and intervals included: ((x low, high), (y low, high))."""
    xs, ys = [], []
    for series in curve.series:
        for i, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
            if y is None or not math.isfinite(y) or not math.isfinite(x):
                continue
            error = _at(series.stderr, i) or 0.0
            xs += [x, *(_at(series.x_intervals, i) or ())]
            ys += [y - error, y + error, *(_at(series.y_intervals, i) or ())]
    return _extent(xs), _extent(ys)


class _Plot:
    """Places and draws what is inside the axes."""

    def __init__(self, curve: Curve):
        self._curve = curve
        has_bars = any(series.x_intervals is not None for series in curve.series)
        x_range, y_range = value_ranges(curve)
        self._x_low, self._x_high = _with_room(*x_range) if has_bars else _not_empty(*x_range)
        self._y_low, self._y_high = _with_room(*y_range)
        self._y_ticks = ticks(self._y_low, self._y_high, 5)
        widest = max((len(tick_text(value)) for value in self._y_ticks), default=1)
        self._left = max(44.0, 20 + _CHAR * widest)

    def x(self, value: float) -> float:
        share = (value - self._x_low) / (self._x_high - self._x_low)
        return self._left + share * (WIDTH - self._left - _RIGHT)

    def y(self, value: float) -> float:
        share = (value - self._y_low) / (self._y_high - self._y_low)
        return _TOP + (1 - share) * (HEIGHT - _TOP - _BOTTOM)

    def draw_axes(self, root: ET.Element) -> None:
        right, bottom = WIDTH - _RIGHT, HEIGHT - _BOTTOM
        for value in self._y_ticks:
            y = self.y(value)
            _sub(root, "line", x1=self._left, x2=right, y1=y, y2=y, stroke=_LINE)
            attributes = {"text-anchor": "end", "fill": _INK_2}
            _text(root, self._left - 8, y + 3.5, tick_text(value), attributes)
        _sub(root, "line", x1=self._left, x2=right, y1=bottom, y2=bottom, stroke=_AXIS)
        for value in ticks(self._x_low, self._x_high, 7):
            attributes = {"text-anchor": "middle", "fill": _INK_2}
            _text(root, self.x(value), bottom + 16, tick_text(value), attributes)
        label = {"text-anchor": "end", "fill": _INK_2}
        _text(root, right, bottom + 34, self._curve.x_label, label)

    def draw(self, root: ET.Element, series: Series, color: str) -> None:
        """Band, bars, line, and dots where there are few points."""
        group = ET.SubElement(root, "g", {"stroke": color, "fill": "none"})
        for run in self._runs(series):
            if series.stderr is not None:
                self._band(group, series, run, color)
            self._bars(group, series, run)
            if len(run) > 1:
                path = _path((self.x(series.xs[i]), self.y(_known(series.ys[i]))) for i in run)
                _sub(group, "path", d=path, stroke_width=1.9, stroke_linejoin="round")
            if len(run) <= _FEW_POINTS:
                for i in run:
                    x, y = self.x(series.xs[i]), self.y(_known(series.ys[i]))
                    dot = _sub(group, "circle", cx=x, cy=y, r=3.4, fill=color, stroke="none")
                    ET.SubElement(dot, "title").text = printable(point_text(series, i))

    def _runs(self, series: Series) -> list[list[int]]:
        """Indices of neighbouring points that are all there."""
        found: list[list[int]] = [[]]
        for i, (x, y) in enumerate(zip(series.xs, series.ys, strict=True)):
            if y is not None and math.isfinite(y) and math.isfinite(x):
                found[-1].append(i)
            elif found[-1]:
                found.append([])
        return [run for run in found if run]

    def _band(self, group: ET.Element, series: Series, run: list[int], color: str) -> None:
        known = [(i, error) for i in run if (error := _at(series.stderr, i)) is not None]
        if len(known) < 2:
            return
        top = [(self.x(series.xs[i]), self.y(_known(series.ys[i]) + e)) for i, e in known]
        base = [(self.x(series.xs[i]), self.y(_known(series.ys[i]) - e)) for i, e in known]
        _sub(group, "path", d=f"{_path([*top, *reversed(base)])}Z", fill=color, opacity=0.14)

    def _bars(self, group: ET.Element, series: Series, run: list[int]) -> None:
        for i in run:
            x, y = self.x(series.xs[i]), self.y(_known(series.ys[i]))
            if (ends := _at(series.x_intervals, i)) is not None:
                low, high = map(self.x, ends)
                d = f"M{low:.1f} {y - 4:.1f}v8m0 -4H{high:.1f}m0 -4v8"
                _sub(group, "path", d=d, stroke_width=1.3)
            if (ends := _at(series.y_intervals, i)) is not None:
                low, high = map(self.y, ends)
                d = f"M{x - 4:.1f} {low:.1f}h8m-4 0V{high:.1f}m-4 0h8"
                _sub(group, "path", d=d, stroke_width=1.3)


def point_text(series: Series, i: int) -> str:
    """`otc, up to 2 calls: x 0.51 (0.44..0.58), y 0.93 (0.9..0.96)`."""
    label = _at(series.labels, i)
    name = ", ".join(filter(None, (series.name, label)))
    parts = []
    for axis, value, ends in (
        ("x", series.xs[i], _at(series.x_intervals, i)),
        ("y", series.ys[i], _at(series.y_intervals, i)),
    ):
        interval = "" if ends is None else f" ({ends[0]:.4g}..{ends[1]:.4g})"
        parts.append(f"{axis} {_known(value):.4g}{interval}")
    return f"{name}: {', '.join(parts)}" if name else ", ".join(parts)


def _legend_lines(curve: Curve) -> list[list[int]]:
    """Indices of the series of each line; none where there is nothing to tell apart."""
    names = [series.name for series in curve.series]
    if len(names) < 2 and not any(names):
        return []
    lines: list[list[int]] = [[]]
    width = 16.0
    for index, name in enumerate(names):
        if lines[-1] and width + _entry_width(name) > WIDTH - _RIGHT:
            lines.append([])
            width = 16.0
        lines[-1].append(index)
        width += _entry_width(name)
    return lines


def _entry_width(name: str) -> float:
    return 33 + _CHAR * len(name)


def _at(values: Sequence[Any] | None, i: int) -> Any:
    return None if values is None else values[i]


def _known(value: float | None) -> float:
    assert value is not None
    return value


def _extent(values: Sequence[float]) -> Point:
    known = [value for value in values if math.isfinite(value)]
    return (min(known), max(known)) if known else (0.0, 1.0)


def _not_empty(low: float, high: float) -> Point:
    return (low - 1, high + 1) if low == high else (low, high)


def _with_room(low: float, high: float) -> Point:
    """A little more at both ends; from 0 where 0 is near."""
    if low == high:
        room = abs(low) * 0.1 or 1.0
        return (-0.05, 1.0) if low == 0 else (low - room, high + room)
    room = (high - low) * 0.06
    return (0.0 if 0 <= low < (high - low) * 0.3 else low - room, high + room)


def _path(points: Iterable[Point]) -> str:
    return "".join(f"{'L' if i else 'M'}{x:.1f} {y:.1f}" for i, (x, y) in enumerate(points))


def _sub(parent: ET.Element, tag: str, **attributes: str | float) -> ET.Element:
    named = {
        name.replace("_", "-"): f"{value:.6g}" if isinstance(value, float) else str(value)
        for name, value in attributes.items()
    }
    return ET.SubElement(parent, tag, named)


def _text(parent: ET.Element, x: float, y: float, text: str, attributes: dict[str, str]) -> None:
    if text:
        place = {"x": f"{x:.6g}", "y": f"{y:.6g}"}
        ET.SubElement(parent, "text", place | attributes).text = printable(text)
