"""What is unusual about one cell of a row, in the units of the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pushforward.detection.column_summary import ColumnSummary
from pushforward.report.text import cell_text, number_text, percent

__all__ = ["HIGH", "LOW", "column_nats", "reason", "usual"]

LOW, HIGH = 0.01, 0.99
"""The quantiles between which a number is usual."""

_RARE = 0.02
_BESIDE = "usual by itself, and unusual beside the other columns"


def reason(
    summary: ColumnSummary, nats: float, cell: Any, value: float, *, values: bool = True, noun: str = "row"
) -> dict[str, Any]:
    """One reason of an alarm, as plain JSON types.

    Args:
        summary: of the column.
        nats: how unusual the cell is.
        cell: as the table has it.
        value: as float64.
        values: whether to show the cell.
        noun: what a row is called.

    Returns:
        ``column``, ``nats``, ``value`` (None if hidden), ``usual`` (what training rows have), ``finding``, a phrase, and
        ``sentence``, which is empty here.
    """
    return {
        "column": summary.column.name,
        "nats": float(nats) if math.isfinite(nats) else None,
        "value": cell_text(summary, cell, value) if values else None,
        "usual": usual(summary),
        "sentence": "",
        "finding": _finding(summary, value).replace("training row", f"training {noun}"),
    }


def usual(summary: ColumnSummary) -> str:
    """What training rows have in a column: the range of 98 % of them, or the most frequent categories."""
    if summary.present == 0:
        return "missing"
    if summary.numeric:
        low, high = (number_text(summary, summary.quantile(q)) for q in (LOW, HIGH))
        return low if low == high else f"{low} to {high}"
    codes = sorted(range(len(summary.counts)), key=lambda k: -summary.counts[k])[:3]
    shown = [f"{number_text(summary, k)} ({percent(summary.fraction(k), 1)})" for k in codes if summary.counts[k]]
    return ", ".join(shown)


def _finding(summary: ColumnSummary, value: float) -> str:
    if math.isnan(value):
        share = summary.missing / summary.rows
        return f"missing, as in {percent(share)} of the training rows" if share else "missing, and no training row was"
    if not summary.numeric:
        if not math.isfinite(value):
            return "no training row had this value"
        share = summary.fraction(int(value))
        among_all = float(summary.counts[int(value)]) / summary.rows  # also those without a value
        return _BESIDE if share > _RARE else f"{percent(among_all)} of the training rows have this value"
    if value < summary.edges[0]:
        return f"below every training row; the smallest is {number_text(summary, summary.edges[0])}"
    if value > summary.edges[-1]:
        return f"above every training row; the largest is {number_text(summary, summary.edges[-1])}"
    if value < summary.quantile(LOW):
        return "lower than in 99% of the training rows"
    if value > summary.quantile(HIGH):
        return "higher than in 99% of the training rows"
    return _BESIDE


def column_nats(summary: ColumnSummary, values: np.ndarray) -> np.ndarray:
    """How unusual cells are by themselves, -log of a tail probability among the training rows, nats, ``(n,)``.

    Outside the training range it grows with the distance, in units of the range, so that the farthest column comes first.
    """
    present = max(1, summary.present)
    least = 1.0 / (present + 2)
    if not summary.numeric:
        known = np.isfinite(values)
        share = np.where(known, summary.counts[np.where(known, values, 0).astype(int)] / present, least)
        absent = np.isnan(values)
        share = np.where(absent, max(least, summary.missing / summary.rows), share)
        return -np.log(np.maximum(share, least))
    cumulative = np.cumsum(summary.counts) / present
    place = np.searchsorted(summary.edges, values, side="left").clip(0, len(summary.edges) - 1)
    high = 1.0 - np.where(place > 0, cumulative[place - 1], 0.0)
    tail = np.clip(2.0 * np.minimum(cumulative[place], high), least, 1.0)
    width = (float(summary.edges[-1]) - float(summary.edges[0])) or 1.0
    with np.errstate(over="ignore"):
        beyond = np.maximum(0.0, np.maximum(summary.edges[0] - values, values - summary.edges[-1])) / width
    nats = np.where(beyond > 0, -math.log(least) + beyond, -np.log(tail))
    return np.where(np.isnan(values), -math.log(max(least, summary.missing / summary.rows)), nats)
