"""The picture of one row's reasons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from pushforward.detection.explanation.reason import Reason, text

__all__ = ["draw"]


def draw(reasons: Sequence[Reason], ax: Any = None) -> Any:
    """Draw a bar for the excess of each column, the most unusual at the top, with its value and usual range as text.

    Args:
        reasons: of one row, the most unusual first.
        ax: matplotlib axes; new ones by default.

    Returns:
        The axes.
    """
    if ax is None:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(8, 0.9 + 0.5 * len(reasons)), layout="constrained")
        FigureCanvasAgg(figure)
        ax = figure.subplots()
    finite = [r.excess for r in reasons if math.isfinite(r.excess)]
    longest = max([*finite, 1.0])
    sizes = [max(r.excess, 0.0) if math.isfinite(r.excess) else 1.15 * longest for r in reasons]
    position = range(len(reasons))
    ax.barh(position, sizes, color=["#c8553d" if r.p_value < 0.05 or r.kind not in ("number", "category") else "#b9c6d3"
                                    for r in reasons], height=0.62)  # fmt: skip
    for at, (size, reason) in enumerate(zip(sizes, reasons, strict=True)):
        ax.annotate(_label(reason), (size, at), (6, 0), textcoords="offset points", va="center", fontsize=9)
    ax.set_yticks(list(position), [reason.column for reason in reasons])
    ax.set_ylim(len(reasons) - 0.5, -0.5)
    ax.set_xlim(0, 1.9 * max(sizes, default=1.0))
    ax.set_xlabel("excess over what is usual for the column, nats")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def _label(reason: Reason) -> str:
    if len(reason.usual) == 2:
        width = reason.usual[1] - reason.usual[0]
        width = width if isinstance(width, (int, float)) else 0.0
        low, high = (text(each, width) for each in reason.usual)
        return f"{text(reason.value, width)}   (usual {low} to {high})"
    if reason.usual:
        return f"{text(reason.value)}   (usual {text(reason.usual[0])})"
    return text(reason.value)
