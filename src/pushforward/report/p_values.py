"""P-values and alarms beside those of rows like the training rows: by p-value, at every level, and along the rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pushforward.detection import FalseAlarmDistribution
from pushforward.report.checks import LEVEL
from pushforward.report.collected import AlongRows, Group

__all__ = ["alarm_curve", "alarms_along", "p_value_histogram"]

_BINS, _POINTS, _MOST = 20, 40, 200_000


def p_value_histogram(groups: Sequence[Group]) -> dict[str, Any]:
    """Counts in equal bins, with the interval of each count for rows like the training rows, as plain JSON types."""
    bins = min(_BINS, *(group.counts.calibrator.n + 1 for group in groups))
    found = [group.counts.histogram(bins, LEVEL, group.left_out) for group in groups]
    counts = np.sum([h.counts for h in found], axis=0)
    if len(found) == 1:
        low, high = np.rint(found[0].low), np.rint(found[0].high)  # fractions times rows, which rounding moved
    else:
        possible = [np.rint(np.diff(h.edges) * (g.counts.calibrator.n + 1)) for h, g in zip(found, groups, strict=True)]
        low, high = _band(groups, possible)
    edges = np.arange(bins + 1) / bins
    return {"edges": edges.tolist(), "counts": counts.tolist(), "low": low.tolist(), "high": high.tolist()}


def alarm_curve(groups: Sequence[Group]) -> dict[str, Any]:
    """Fraction of rows with a p-value of at most each level, with its interval for rows like the training rows."""
    rows = sum(group.counts.rows for group in groups)
    smallest = min(group.counts.calibrator.n for group in groups) + 1
    ranks = np.unique(np.rint(np.geomspace(1, smallest, _POINTS)))
    levels = ranks / smallest
    below = np.sum([group.counts.with_p_at_most(levels) for group in groups], axis=0)
    if len(groups) == 1:
        bands = np.array([groups[0].counts.interval(int(k), LEVEL, groups[0].left_out) for k in ranks])
        low, high = bands[:, 0], bands[:, 1]
    else:
        possible = [np.floor(levels * (g.counts.calibrator.n + 1) * (1 + 1e-12)) for g in groups]
        low, high = (end / max(1, rows) for end in _band(groups, possible))
    fraction = below / max(1, rows)
    return {"level": levels.tolist(), "fraction": fraction.tolist(), "low": low.tolist(), "high": high.tolist()}


def alarms_along(along: AlongRows, group: Group) -> list[dict[str, Any]]:
    """Alarms in blocks of rows, with the interval of each fraction by itself, as plain JSON types."""
    n = group.counts.calibrator.n
    k = round(group.level * (n + 1))
    if k == 0:
        return []
    rate, bands = FalseAlarmDistribution(k, n + 1 - k, group.left_out), {}
    found = []
    for start, rows, alarms in along.blocks(2 / group.level):
        if rows not in bands:
            bands[rows] = rate.realized_interval(min(rows, _MOST), LEVEL)
        found.append({"start": start, "rows": rows, "alarms": alarms, "low": bands[rows][0], "high": bands[rows][1]})
    return found


def _band(
    groups: Sequence[Group], possible: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Interval of the sum of independent beta-binomial counts, by its mean and variance."""
    from scipy.special import ndtri

    mean, variance = np.zeros(len(possible[0])), np.zeros(len(possible[0]))
    for group, k in zip(groups, possible, strict=True):
        n, m = group.counts.calibrator.n, group.counts.rows
        mean += m * k / (n + 1)
        variance += m * k * (n + 1 - k) * (n + 1 + m) / ((n + 1) ** 2 * (n + 2))
    width = float(ndtri(0.5 + LEVEL / 2)) * np.sqrt(variance)
    return np.maximum(0.0, mean - width), np.minimum(sum(g.counts.rows for g in groups), mean + width)
