"""Histograms of anomaly scores, with the threshold of an alarm."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pushforward.numerics.checks import check_integer, check_number
from pushforward.plot.axes import bars, edges_of, groups_of, legend, mark, new_axes, tidy, turns
from pushforward.plot.names import label_of, plain

__all__ = ["scores"]


def scores(
    groups: Any, threshold: float | None = None, *, ax: Any = None, name: str = "anomaly score, nats", bins: int = 60
) -> Any:
    """Draw scores of several groups of rows as histograms, and how many of each are beyond a threshold.

    Each histogram has the same area, so groups of different sizes can be compared. The few scores outside the central
    99.5 % of all scores are drawn in the outermost bars.

    Args:
        groups: scores ``(n,)`` of each group by name; or of one group.
        threshold: a score at or above which there is an alarm, such as ``-guard.offset_``; None for none.
        ax: matplotlib axes; new ones by default.
        name: of the score, with its unit.
        bins: number of bars.

    Returns:
        The axes.

    Raises:
        InputError: for NaN or no scores.
        ConfigError: without matplotlib, for a number of bars below 1, or a threshold that is not finite.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> ax = pf.plot.scores({"normal": rng.normal(size=100), "faults": rng.normal(4, 1, 50)}, threshold=2.5)
        >>> [text.get_text() for text in ax.get_legend().get_texts()]
        ['normal: 0 % alarms', 'faults: 94 % alarms', 'alarm']
    """
    found = {key: v.ravel() for key, v in groups_of(groups, "scores", "").items()}
    check_integer("bins", bins)
    check_number("threshold", threshold, -math.inf, math.inf, optional=True)
    finite = np.concatenate([v[np.isfinite(v)] for v in found.values()])
    low, high = np.quantile(finite, [0.0025, 0.9975]) if finite.size else (0.0, 1.0)
    if threshold is not None and np.isfinite(threshold):
        low, high = min(low, threshold), max(high, threshold)
    edges = edges_of(low, high, bins)
    ax = tidy(new_axes(ax), left=False)
    for (color, turn), (key, v) in zip(turns(ax, len(found)), found.items(), strict=True):
        shown = key
        if threshold is not None:
            share = 100 * (v >= threshold).mean()
            shown = f"{key}: {share:{'.3g' if share >= 99.5 else '.2g'}} % alarms".removeprefix(": ")
        ax.hist(np.clip(v, edges[0], edges[-1]), edges, density=True, label=label_of(shown), **bars(color, turn))
    if threshold is not None:
        mark(ax, threshold, "alarm", color="black", linewidth=1.4)
    ax.set(xlabel=plain(name), yticks=[])
    legend(ax)
    return ax
