"""The charts of a report, as SVG that needs nothing else. All texts are escaped by the XML writer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from pushforward.report.text import figure, percent, plural, promised_rate, visible

__all__ = ["Chart", "alarm_curve_chart", "along_chart", "bars_chart", "histogram_chart", "rate_chart", "scale"]

_WIDTH, _HEIGHT = 440, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 40


class Chart:
    """An SVG element with axes; it scales with the page, and its label says what it shows."""

    def __init__(self, label: str, width: int = _WIDTH, height: int = _HEIGHT) -> None:
        self.width, self.height = width, height
        self.root = ET.Element("svg", {"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})

    def add(self, tag: str, cls: str, text: str = "", **attributes: Any) -> ET.Element:
        """A shape of a class of the style sheet; text is its content, or appears on hovering."""
        shown = {k.replace("_", "-"): f"{v:.2f}" if isinstance(v, float) else str(v) for k, v in attributes.items()}
        element = ET.SubElement(self.root, tag, {"class": cls, **shown})
        if text and tag == "text":
            element.text = text
        elif text:
            ET.SubElement(element, "title").text = text
        return element

    def rect(self, cls: str, x0: float, x1: float, y0: float, y1: float, text: str = "") -> None:
        """A rectangle between two corners, with a text that appears on hovering."""
        box = {"x": min(x0, x1), "width": abs(x1 - x0), "y": min(y0, y1), "height": abs(y1 - y0)}
        self.add("rect", cls, text, **{name: float(v) for name, v in box.items()})

    def line(self, cls: str, x0: float, y0: float, x1: float, y1: float) -> None:
        """A line between two points."""
        self.add("line", cls, x1=float(x0), y1=float(y0), x2=float(x1), y2=float(y1))

    def text(self, x: float, y: float, text: str, anchor: str = "middle", cls: str = "") -> None:
        """A text; ``anchor`` says which end of it is at the point."""
        self.add("text", cls, text, x=float(x), y=float(y), text_anchor=anchor)

    def markup(self) -> Markup:
        """The element, for a template."""
        return Markup(ET.tostring(self.root, encoding="unicode"))


def _axis_x(chart: Chart, ticks: Sequence[tuple[float, str]], name: str) -> None:
    base = chart.height - _BOTTOM
    chart.line("axis", _LEFT, base, chart.width - _RIGHT, base)
    for x, text in ticks:
        chart.line("axis", x, base, x, base + 4)
        chart.text(min(x, chart.width - 4.0 * len(text)), base + 17, text)
    chart.text((_LEFT + chart.width - _RIGHT) / 2, chart.height - 6, name)


def _axis_y(chart: Chart, ticks: Sequence[tuple[float, str]]) -> None:
    for y, text in ticks:
        chart.line("axis", _LEFT, y, chart.width - _RIGHT, y)
        chart.text(_LEFT - 6, y + 4, text, "end")


def _steps(top: float) -> list[float]:
    """Three or four round numbers from 0 to at most ``top``."""
    raw = top / 3.5
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(s * size for s in (1, 2, 2.5, 5, 10) if s * size >= raw)
    return [k * step for k in range(int(top / step) + 1)]


def histogram_chart(found: Mapping[str, Any], rows: int) -> Markup:
    """Counts of p-values, with the interval of each by theory."""
    edges, counts, low, high = (found[name] for name in ("edges", "counts", "low", "high"))
    outside = sum(not a <= c <= b for c, a, b in zip(counts, low, high, strict=True))
    label = (
        f"Histogram of {rows} p-values in {len(counts)} bins; {outside} bins are outside the band of theory. "
        f"The first bin, with the smallest p-values, has {counts[0]}."
    )
    chart = Chart(label)
    top = 1.08 * max(*counts, *high, 1)
    x, y = scale(0, 1, _LEFT, chart.width - _RIGHT), scale(0, top, chart.height - _BOTTOM, _TOP)
    _axis_y(chart, [(y(v), figure(v)) for v in _steps(top)])
    for k, count in enumerate(counts):
        left, right = x(edges[k]), x(edges[k + 1])
        bad = not low[k] <= count <= high[k]
        text = f"p from {figure(edges[k])} to {figure(edges[k + 1])}: {figure(count)} rows; band {figure(round(low[k]))} to {figure(round(high[k]))}"
        chart.rect("band", left, right, y(low[k]), y(high[k]))
        side = 0.2 * (right - left)
        chart.rect("bar bad" if bad else "bar", left + side, right - side, y(count), y(0), text)
    _axis_x(chart, [(x(v), figure(v)) for v in (0, 0.25, 0.5, 0.75, 1)], "p-value")
    return chart.markup()


def alarm_curve_chart(found: Mapping[str, Any], level: float | None) -> Markup:
    """Fraction of rows at or below each p-value against that p-value, on logarithmic axes, with a mark at the level of alarms."""
    levels = found["level"]
    positive = [v for name in ("fraction", "low") for v in found[name] if v and v > 0]
    smallest = 10.0 ** math.floor(math.log10(min([levels[0], *positive])) + 1e-9)
    smallest = max(smallest, levels[0] / 20)
    at = min(range(len(levels)), key=lambda k: abs(math.log(levels[k] / (level or levels[0]))))
    label = (
        f"Fraction of rows with a p-value of at most each level, on logarithmic axes: {percent(found['fraction'][at])} at the "
        f"level {percent(levels[at])}. Rows like those that calibrated the guard follow the diagonal, inside the band."
    )
    chart = Chart(label)
    x = log_scale(levels[0], 1, _LEFT, chart.width - _RIGHT)
    y = log_scale(smallest, 1, chart.height - _BOTTOM, _TOP)
    decades = [10.0**k for k in range(math.ceil(math.log10(smallest) - 1e-9), 1)]
    _axis_y(chart, [(y(v), _tick(v)) for v in decades])
    band = [(x(a), y(b)) for a, b in zip(levels, found["high"], strict=True)]
    band += [(x(a), y(b)) for a, b in reversed(list(zip(levels, found["low"], strict=True)))]
    chart.add("polygon", "band", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in band))
    chart.line("promise", x(levels[0]), y(levels[0]), x(1), y(1))
    if level is not None and level >= levels[0] * (1 - 1e-9):
        chart.line("mark", x(level), _TOP, x(level), chart.height - _BOTTOM)
        right = level > 0.2
        chart.text(
            x(level) + (-5 if right else 5),
            chart.height - _BOTTOM - 6,
            f"alarms at {_tick(level)}",
            "end" if right else "start",
            "strong",
        )
    seen = [(x(a), y(b)) for a, b in zip(levels, found["fraction"], strict=True) if b]
    chart.add("polyline", "line", points=" ".join(f"{a:.1f},{b:.1f}" for a, b in seen))
    _axis_x(chart, [(x(v), _tick(v)) for v in decades if v >= levels[0] * 0.999], "level of the p-value")
    return chart.markup()


def rate_chart(promise: Mapping[str, Any], group: Mapping[str, Any], bad: bool) -> Markup:
    """The fraction of alarms on a line, with the promised rate and the interval of theory; a ``bad`` one is marked."""
    low, high = group["interval"]
    fraction, alpha = group["alarms"] / max(1, group["rows"]), promise["alpha"]
    label = (
        f"{percent(fraction)} of the rows raise an alarm; the promise is {promised_rate(alpha)}, and theory gives "
        f"{percent(low)} to {percent(high)}."
    )
    chart = Chart(label, height=92)
    top = min(1.0, 1.15 * max(fraction, high, alpha))
    x = scale(0, top, 14, chart.width - 14)
    chart.rect("track", x(0), x(top), 34, 46)
    chart.rect("band", x(low), x(min(high, top)), 34, 46)
    chart.line("promise", x(alpha), 26, x(alpha), 54)
    chart.text(_inside(x(alpha), 40, chart.width), 72, f"promised {promised_rate(alpha)}")
    chart.add("circle", "dot bad" if bad else "dot", cx=float(x(fraction)), cy=40.0, r=7)
    chart.text(_inside(x(fraction), 52, chart.width), 18, f"observed {percent(fraction)}", cls="strong")
    return chart.markup()


def along_chart(blocks: Sequence[Mapping[str, Any]], alpha: float, noun: str) -> Markup:
    """The fraction of alarms in blocks of rows, in the order of the rows, with the interval of each by theory."""
    fractions = [block["alarms"] / block["rows"] for block in blocks]
    high = [k for k, block in enumerate(blocks) if fractions[k] > block["high"]]
    label = (
        f"Fraction of alarms in {plural(len(blocks), 'block')} of rows, in the order of the rows; {len(high)} of them above the band of "
        f"theory. The promised rate is {promised_rate(alpha)}."
    )
    chart = Chart(label)
    last = blocks[-1]["start"] + blocks[-1]["rows"]
    top = min(1.0, 1.1 * max(2 * alpha, *fractions, *(min(block["high"], 0.5) for block in blocks[:-1] or blocks)))
    x, y = scale(0, last, _LEFT, chart.width - _RIGHT), scale(0, top, chart.height - _BOTTOM, _TOP)
    _axis_y(chart, [(y(v), _tick(v)) for v in _steps(top)])
    for block in blocks:
        chart.rect(
            "band", x(block["start"]), x(block["start"] + block["rows"]), y(block["low"]), y(min(block["high"], top))
        )
    chart.line("promise", _LEFT, y(alpha), chart.width - _RIGHT, y(alpha))
    middle = [x(block["start"] + block["rows"] / 2) for block in blocks]
    chart.add(
        "polyline", "line", points=" ".join(f"{a:.1f},{y(f):.1f}" for a, f in zip(middle, fractions, strict=True))
    )
    for k, block in enumerate(blocks):
        text = f"{noun} {figure(block['start'])} to {figure(block['start'] + block['rows'] - 1)}: {figure(block['alarms'])} alarms ({percent(fractions[k])})"
        chart.add(
            "circle",
            "dot bad" if k in high else "dot",
            text,
            cx=middle[k],
            cy=y(fractions[k]),
            r=4.0 if k in high else 3.0,
        )
    _axis_x(chart, [(x(v), figure(v)) for v in _steps(last)], noun)
    return chart.markup()


def bars_chart(counts: Sequence[tuple[str, int]], total: int, noun: str) -> Markup:
    """Horizontal bars with names, the largest first."""
    shown = counts[:10]
    label = f"{noun}: " + ", ".join(f"{visible(name, 40)} {figure(count)}" for name, count in shown) + "."
    chart = Chart(label, height=26 * len(shown) + 8)
    most = max(count for _, count in shown)
    for k, (name, count) in enumerate(shown):
        y = 4 + 26 * k
        chart.text(150, y + 16, visible(name, 19), "end", "name")
        right = 158 + 170 * count / most
        chart.rect("bar", 158, right, y + 4, y + 21, f"{visible(name)}: {figure(count)}")
        chart.text(right + 6, y + 17, f"{figure(count)} ({percent(count / total, 0)})", "start")
    return chart.markup()


def scale(a: float, b: float, start: float, end: float) -> Callable[[float], float]:
    """The linear map that takes ``a`` to ``start`` and ``b`` to ``end``."""
    return lambda v: start + (v - a) / (b - a) * (end - start)


def log_scale(a: float, b: float, start: float, end: float) -> Callable[[float], float]:
    """The map, linear in the logarithm, that takes ``a`` to ``start`` and ``b`` to ``end``; values below ``a`` count as ``a``."""
    low, high = math.log(a), math.log(b)
    return lambda v: start + (math.log(max(v, a)) - low) / (high - low) * (end - start)


def _inside(x: float, half: float, width: float) -> float:
    return min(max(x, half + 4), width - half - 4)


def _tick(value: float) -> str:
    return f"{100 * value:.3g}%"
