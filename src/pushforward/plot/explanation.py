"""The picture of one row's reasons."""

from __future__ import annotations

import math
from typing import Any

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer
from pushforward.plot.axes import ORANGE, new_axes, tidy

__all__ = ["explanation"]

_USUAL, _UNUSUAL = "#B9C6D3", ORANGE


def explanation(found: Any, row: int = 0, *, k: int = 8, ax: Any = None) -> Any:
    """Draw a bar for the excess of each column of a row, the most unusual at the top, with its value and usual range.

    Columns with a p-value below 5 %, or a cell that no training row has, have the darker color.

    Args:
        found: what ``guard.explain`` returned, or the reasons of one row.
        row: position of the row.
        k: number of columns at most.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.

    Raises:
        InputError: without reasons.
        ConfigError: without matplotlib, or for a row that does not exist.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> rows = {"flow, l/s": rng.normal(size=300), "pressure, bar": rng.normal(5, 1, size=300)}
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
        >>> ax = pf.plot.explanation(guard.explain({"flow, l/s": [0.5], "pressure, bar": [11.0]}))
        >>> [label.get_text() for label in ax.get_yticklabels()]
        ['pressure, bar', 'flow, l/s']
    """
    check_integer("k", k)
    reasons = found.reasons(row, k) if hasattr(found, "reasons") else list(found)[:k]
    if not reasons:
        raise InputError("there are no reasons to draw.")
    ax = tidy(new_axes(ax, (8.0, 0.9 + 0.5 * len(reasons))))
    finite = [reason.excess for reason in reasons if math.isfinite(reason.excess)]
    longest = max([*finite, 1.0])
    sizes = [max(r.excess, 0.0) if math.isfinite(r.excess) else 1.15 * longest for r in reasons]
    places = range(len(reasons))
    colors = [_UNUSUAL if not r.is_seen or r.p_value < 0.05 else _USUAL for r in reasons]
    ax.barh(places, sizes, color=colors, height=0.62)
    for at, (size, reason) in enumerate(zip(sizes, reasons, strict=True)):
        ax.annotate(reason.label, (size, at), (6, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_yticks(list(places), [reason.column for reason in reasons])
    ax.set_ylim(len(reasons) - 0.5, -0.5)
    ax.set_xlim(0, 1.9 * max(*sizes, longest / 2))
    ax.set_xlabel("excess over what is usual for the column, nats")
    return ax
