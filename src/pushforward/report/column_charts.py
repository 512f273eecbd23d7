"""The chart of one column of a report: the training rows beside these rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from pushforward.report.charts import Chart, scale
from pushforward.report.text import figure, percent, visible

__all__ = ["column_chart"]


def column_chart(column: Mapping[str, Any]) -> Markup:
    """A column of the training rows and of these rows: the distribution function of numbers, or bars of categories."""
    name = visible(column["name"], 60)
    before, after = column["training_counts"], column["counts"]
    n, m = max(1, sum(before)), max(1, column["rows"] - column["missing"])
    distance = figure(column["distance"])
    if column["edges"] is None:
        return _category_chart(
            column, f"Shares of the values of {name} in the training rows and in these rows; distance {distance}.", n, m
        )
    chart = Chart(
        f"Distribution functions of {name} in the training rows and in these rows; distance {distance}.", 220, 74
    )
    edges = column["edges"]
    low, high = edges[0], edges[-1]
    core = [e for e, c in zip(edges, _cumulative(before, n), strict=True) if 0.004 < c < 0.996] or edges
    width = (core[-1] - core[0]) or (high - low) or 1.0
    low, high = max(low, core[0] - width), min(high, core[-1] + width)
    margin = max(0.12 * ((high - low) or 1.0), 4 * math.ulp(max(abs(low), abs(high))))
    x, y = scale(low - margin, high + margin, 2, 218), scale(0, 1, 70, 4)
    for cls, counts, total, start in (("line quiet", before, n, 0), ("line", after, m, column["below"])):
        points, level = [(2.0, y(start / total))], start / total
        for edge, value in zip(edges, _cumulative(counts, total, start), strict=True):
            place = min(218.0, max(2.0, x(edge)))
            points += [(place, y(level)), (place, y(value))]
            level = value
        points.append((218.0, y(level)))
        if cls == "line":
            points.append((218.0, y((start + sum(counts) + column["above"]) / total)))
        chart.add("polyline", cls, points=" ".join(f"{a:.1f},{b:.1f}" for a, b in _thin(points)))
    return chart.markup()


def _category_chart(column: Mapping[str, Any], label: str, n: int, m: int) -> Markup:
    before, after = list(column["training_counts"]), list(column["counts"])
    labels = list(column["labels"])
    if column["unseen"]:
        labels, before, after = [*labels, "new"], [*before, 0], [*after, column["unseen"]]
    order = sorted(range(len(before)), key=lambda k: -max(before[k] / n, after[k] / m))[:5]
    chart = Chart(label, 220, 74)
    top = max(max(before[k] / n, after[k] / m) for k in order) or 1.0
    width = 214 / len(order)
    for place, k in enumerate(order):
        left = 3 + place * width
        for cls, share, shift in (("bar quiet", before[k] / n, 0.0), ("bar", after[k] / m, 0.4)):
            text = f"{labels[k]}: {percent(before[k] / n, 1)} of the training values, {percent(after[k] / m, 1)} of these values"
            x0 = left + width * (0.08 + shift)
            chart.rect(cls, x0, x0 + width * 0.38, 58 - 52 * share / top, 58, text)
        chart.text(left + width / 2, 71, visible(labels[k], max(3, int(width / 7))), cls="small")
    return chart.markup()


def _cumulative(counts: Sequence[int], total: int, start: int = 0) -> list[float]:
    found, reached = [], start
    for count in counts:
        reached += count
        found.append(reached / total)
    return found


def _thin(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points without those that would not be seen."""
    kept: list[tuple[float, float]] = []
    for point in points:
        if not kept or abs(point[0] - kept[-1][0]) + abs(point[1] - kept[-1][1]) >= 0.7 or point is points[-1]:
            kept.append(point)
    return kept
