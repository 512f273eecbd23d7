"""What all pictures share: new axes, colors, legends that cover nothing, and text that can be read on any color."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pushforward.errors import ConfigError, InputError

__all__ = ["BAND", "BLUE", "COLORS", "GRAY", "MISSING", "ORANGE", "array", "groups_of", "ink", "legend", "new_axes", "new_figure", "tidy"]  # fmt: skip

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
"""Colors of curves and groups, in the order of their use (Okabe and Ito 2008)."""
GRAY, BAND = "#666666", "#DDDDDD"

MISSING = "pictures need matplotlib: pip install matplotlib."


def new_figure(size: tuple[float, float]) -> Any:
    """A figure of a size in inches that can be written to a file; pyplot does not know it.

    Raises:
        ConfigError: without matplotlib.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(MISSING) from None
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_axes(ax: Any, size: tuple[float, float] = (5.0, 3.6)) -> Any:
    """``ax`` itself, or axes in a new figure of a size in inches.

    Raises:
        ConfigError: without matplotlib, or for something that is not matplotlib axes.
    """
    if ax is None:
        return new_figure(size).subplots()
    if not hasattr(ax, "get_legend_handles_labels"):
        raise ConfigError(f"ax is matplotlib axes, or None for new ones; got {type(ax).__name__}.")
    return ax


def tidy(ax: Any, *, left: bool = True) -> Any:
    """The axes without the lines that enclose no data."""
    ax.spines[["top", "right"] + ([] if left else ["left"])].set_visible(False)
    return ax


def legend(ax: Any) -> None:
    """A legend in a space of its own above the curves: the upper limit of the y axis is raised by its height.

    Vertical lines (``ax.axvline``) end below it.
    """
    handles, names = ax.get_legend_handles_labels()
    if not names:
        return
    width = 1.15 * ax.figure.get_figwidth() * ax.get_position().width
    columns = max(1, min(len(names), int(width / (0.45 + 0.065 * max(map(len, names))))))
    rows = math.ceil(len(names) / columns)
    height = ax.figure.get_figheight() * ax.get_position().height
    share = min(0.6, (0.21 * rows + 0.1) / max(height, 0.5))
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        ax.set_ylim(low, low * (high / low) ** (1 / (1 - share)))
    else:
        ax.set_ylim(low, low + (high - low) / (1 - share))
    for line in ax.get_lines():
        if line.get_transform() == ax.get_xaxis_transform(which="grid") and list(line.get_ydata()) == [0, 1]:
            line.set_ydata([0, 1 - share])
    ax.legend(
        handles, names, loc="upper center", ncols=columns, frameon=False, fontsize=9, borderaxespad=0.2,
        columnspacing=1.2, handlelength=1.4,
    )  # fmt: skip


def ink(color: Sequence[float]) -> str:
    """Black or white, whichever has the larger contrast with a color (relative luminance, WCAG 2.1).

    Args:
        color: red, green and blue from 0 to 1; more entries are ignored.

    Example:
        >>> ink((0.0, 0.3, 0.1)), ink((0.9, 0.9, 0.2))
        ('white', 'black')
    """
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in color[:3]]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return "black" if (luminance + 0.05) ** 2 > 0.05 * 1.05 else "white"


def array(values: Any, what: str) -> np.ndarray:
    """Numbers as a float64 array; tensors may require a gradient or be on another device.

    Raises:
        InputError: for something else, for NaN, and for nothing.
    """
    try:
        values = values.detach().cpu().numpy() if hasattr(values, "detach") else values
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers: {error}.") from None
    if not found.size or np.isnan(found).any():
        raise InputError(f"{what} must be numbers; got {'NaN' if found.size else 'none'}.")
    return found


def groups_of(values: Any, what: str, name: str) -> dict[str, np.ndarray]:
    """Arrays by name: of a mapping, or one array under the name ``name``."""
    if isinstance(values, Mapping):
        if not values:
            raise InputError(f"{what} must be numbers; got none.")
        return {str(key): array(each, f"{what} of {key!r}") for key, each in values.items()}
    return {name: array(values, what)}
