"""The picture of one row's reasons."""

from __future__ import annotations

import math
from typing import Any

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer
from pushforward.plot.axes import ORANGE, new_axes, tidy
from pushforward.plot.names import fitted, width_of

__all__ = ["explanation"]

_USUAL, _UNUSUAL = "#B9C6D3", ORANGE
_UNUSUAL_TEXT = "#A84300"
"""Darker than the bars: 6 to 1 on white, which small text needs."""
_MEANING = "usual: 95 % of rows with such other columns; orange: unusual"


def explanation(found: Any, row: int = 0, *, k: int = 8, ax: Any = None) -> Any:
    """Draw a bar for the excess of each column of a row, the most unusual at the top, with its value and usual range.

    The bar and the text of a column are orange where its p-value is below 5 %, or where no training row has such a cell. The
    usual range holds 95 % of normal rows whose other columns are like those of this row. If one of these is wrong, the range of
    another column can be wrong too: that one then has orange text and no bar, because the row would be as unusual without it.
    Long names of columns and long cells lose their middle.

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
    end = 1.9 * max(*sizes, longest / 2)
    names = [_fitted(reason.column, 2.2) for reason in reasons]
    room = ax.figure.bbox.width / ax.figure.dpi - max(width_of(name.replace("$", r"\$")) for name in names) - 0.25
    width = min(ax.bbox.width / ax.figure.dpi, room)  # beside long names the axes will be narrower
    for at, (size, reason, color) in enumerate(zip(sizes, reasons, colors, strict=True)):
        style: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 9, "parse_math": False}
        said = _fitted(reason.label, (1 - size / end) * width - 6 / 72, 9)
        ax.annotate(said, (size, at), (6, 0), color=_UNUSUAL_TEXT if color == _UNUSUAL else "black", **style)
    ax.set_yticks(list(places), names, parse_math=False)
    ax.set_ylim(len(reasons) - 0.5, -0.5)
    ax.set_xlim(0, end)
    ax.set_xlabel(f"excess over what is usual for the column, nats\n{_MEANING}")
    return ax


def _fitted(text: str, inches: float, size: float = 10.0) -> str:
    """The same as ``fitted`` of a text that is drawn without formulas, so that every dollar is a letter."""
    return fitted(text.replace("$", r"\$"), inches, size).replace(r"\$", "$")
