"""What all pictures share: new axes, colors, legends that cover nothing, and text that can be read on any color."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pushforward.errors import ConfigError, InputError
from pushforward.plot.names import fitted

__all__ = [
    "BAND", "BLUE", "COLORS", "GRAY", "LINES", "MARKERS", "MISSING", "ORANGE", "array", "bars", "check_names", "edges_of", "groups_of", "ink", "legend",
    "mark", "new_axes", "new_figure", "set_limits", "tidy", "turns", "unnamed",
]  # fmt: skip

BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, YELLOW)
"""Colors of curves and groups, in the order of their use (Okabe and Ito 2008)."""
GRAY, BAND = "#666666", "#DDDDDD"
LINES, MARKERS, HATCHES = ("-", "--", ":", "-."), (".", "^", "s", "P"), ("", "////", "....", "xxxx")
"""What tells groups of the same color apart: the first six have the first of each, the next six the second."""

MISSING = "pictures need matplotlib: pip install matplotlib."

_LIMITS, _TURN = "_pushforward_limits", "_pushforward_turn"
"""Attributes of axes: the limits that a picture set, those before and whether these were automatic; and the groups so far."""


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

    Limits that an earlier picture set in ``ax`` are taken back, so that the y axis holds what is drawn next.

    Raises:
        ConfigError: without matplotlib, or for something that is not matplotlib axes.
    """
    if ax is None:
        return new_figure(size).subplots()
    if not hasattr(ax, "get_legend_handles_labels"):
        raise ConfigError(f"ax is matplotlib axes, or None for new ones; got {type(ax).__name__}.")
    for each in ax.get_shared_y_axes().get_siblings(ax):
        kept = getattr(each, _LIMITS, None)
        if kept is not None and kept[0] == each.get_ylim():
            each.set_ylim(kept[1], auto=kept[2])
    return ax


def set_limits(ax: Any, low: float, high: float) -> None:
    """Set the limits of the y axis, until :func:`new_axes` takes them back for the next picture in the same axes."""
    before, auto = ax.get_ylim(), ax.get_autoscaley_on()
    kept = getattr(ax, _LIMITS, None)
    if kept is not None and kept[0] == before:
        _, before, auto = kept
    ax.set_ylim(low, high)
    setattr(ax, _LIMITS, (ax.get_ylim(), before, auto))


def tidy(ax: Any, *, left: bool = True) -> Any:
    """The axes without the lines that enclose no data."""
    ax.spines[["top", "right"] + ([] if left else ["left"])].set_visible(False)
    return ax


def turns(ax: Any, count: int) -> list[tuple[str, int]]:
    """A color and a position in ``LINES``, ``MARKERS`` or ``HATCHES`` for each of the next groups of the axes."""
    first = getattr(ax, _TURN, 0) if ax.has_data() else 0
    setattr(ax, _TURN, first + count)
    return [(COLORS[k % len(COLORS)], k // len(COLORS) % len(LINES)) for k in range(first, first + count)]


def bars(color: str, turn: int) -> dict[str, Any]:
    """The style of a histogram."""
    hatch = {"hatch": HATCHES[turn], "edgecolor": "black", "linewidth": 0} if turn else {}
    return {"color": color, "alpha": 0.6, **hatch}


def edges_of(low: float, high: float, count: int) -> np.ndarray:
    """The edges of so many bars from one number to another, ``(count + 1,)``; the last one is farther where bars would have no width."""
    least = 2 * count * float(np.spacing(max(abs(low), abs(high))))
    return np.linspace(low, max(high if high > low else low + 1.0, low + least), count + 1)


def unnamed(ax: Any, label: str) -> bool:
    """Whether nothing in the axes has this label, so that a legend names it once."""
    return label not in ax.get_legend_handles_labels()[1]


def mark(ax: Any, x: float, label: str, **style: Any) -> None:
    """A vertical line, unless the axes have it already; a legend names such lines once."""
    same = [list(line.get_xdata()) for line in ax.get_lines() if line.get_label() == label]
    if [x, x] not in same:
        ax.axvline(x, label=None if same else label, **style)


def legend(ax: Any) -> None:
    """A legend in a space of its own above the curves: the upper limit of the y axis is raised by its height.

    Vertical lines (``ax.axvline``) end below it, and names that are too wide for it lose their middle.
    """
    handles, names = ax.get_legend_handles_labels()
    if not names:
        return
    width, height = (
        1.15 * ax.bbox.width / ax.figure.dpi,
        ax.bbox.height / ax.figure.dpi,
    )  # inches, in parts of a figure too
    fit = int(width / (0.45 + 0.065 * max(map(len, names))))
    columns = max(1, min(len(names), fit))
    most = max(1, int((0.4 * height - 0.1) / 0.21))
    if math.ceil(len(names) / columns) > most:  # the curves would have less than 60 % of the height
        columns = max(columns, min(math.ceil(len(names) / most), int(width / 2.1)))
    rows = math.ceil(len(names) / columns)
    share = min(0.6, (0.21 * rows + 0.1) / max(height, 0.5))
    low, high = ax.get_ylim()
    if ax.get_yscale() == "log":
        set_limits(ax, low, low * (high / low) ** (1 / (1 - share)))
    else:
        set_limits(ax, low, low + (high - low) / (1 - share))
    for line in ax.get_lines():
        if line.get_transform() == ax.get_xaxis_transform(which="grid") and len(line.get_ydata()) == 2:
            line.set_ydata([min(end, 1 - share) for end in line.get_ydata()])
    made = ax.legend(
        handles, names, loc="upper center", ncols=columns, frameon=False, fontsize=9, borderaxespad=0.2,
        columnspacing=1.2, handlelength=1.4,
    )  # fmt: skip
    widest = width / columns - 0.4 if columns > fit or columns == 1 else math.inf
    for text, name in zip(made.get_texts(), names, strict=True):
        shown = name[1:] if name.startswith(" _") else name  # label_of puts a space before "_"
        text.set_text(fitted(shown, widest, 9.0))


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


def array(values: Any, what: str, *, finite: bool = False) -> np.ndarray:
    """Numbers as a float64 array; tensors may require a gradient or be on another device.

    Raises:
        InputError: for something else, such as complex numbers, for NaN, for nothing, and for infinite numbers if they must be ``finite``.
    """
    if "complex" in str(getattr(values, "dtype", "")):
        raise InputError(f"{what} must be real numbers: draw the real and the imaginary part by themselves.")
    try:
        values = values.detach().cpu().double().numpy() if hasattr(values, "detach") else values
        found = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} must be numbers: {error}.") from None
    if not found.size or np.isnan(found).any():
        raise InputError(f"{what} must be numbers; got {'NaN' if found.size else 'none'}.")
    infinite = int(np.isinf(found).sum()) if finite else 0
    if infinite:
        raise InputError(f"{what} must be finite: leave out the infinite ones, {infinite} of {found.size} numbers.")
    return found


def check_names(names: Any, count: int) -> None:
    """Refuse names that are not as many as the columns; None is allowed.

    Raises:
        InputError: for another number of names, or one text.
    """
    if names is not None and (isinstance(names, str) or len(names) != count):
        raise InputError(f"names must be {count}, one name for each column; got {names!r:.80}.")


def groups_of(values: Any, what: str, name: str, *, finite: bool = False) -> dict[str, np.ndarray]:
    """Arrays by name: of a mapping, or one array under the name ``name``."""
    if isinstance(values, Mapping):
        if not values:
            raise InputError(f"{what} must be numbers; got none.")
        return {str(key): array(each, f"{what} of {key!r}", finite=finite) for key, each in values.items()}
    return {name: array(values, what, finite=finite)}
