"""A table of numbers as colors, with text that can be read on each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_number
from pushforward.plot.axes import array, ink, new_axes
from pushforward.plot.names import fitted, plain, width_of

__all__ = ["heat_map"]


def heat_map(
    values: Any,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    ax: Any = None,
    name: str = "",
    form: str = ".2f",
    limits: tuple[float, float] | None = None,
    cmap: str = "viridis",
) -> Any:
    """Draw a table of numbers: a color for each cell, and its number in black or white, whichever has more contrast.

    Names of columns that are wider than a cell are turned, and long names lose their middle.

    Args:
        values: ``(rows, columns)``.
        rows: their names.
        columns: their names.
        ax: matplotlib axes; new ones by default.
        name: of the numbers, with their unit; it labels the scale of the colors.
        form: how a number is written, as for ``format``.
        limits: the numbers with the first and the last color; None for the smallest and the largest.
        cmap: matplotlib's name of the colors.

    Returns:
        The axes.

    Raises:
        InputError: for a table that does not have these rows and columns, or NaN.
        ConfigError: without matplotlib, or for limits that are not two numbers, the lower one first.

    Example:
        >>> import pushforward as pf
        >>> ax = pf.plot.heat_map([[0.1, 0.9], [0.5, 0.7]], ["a", "b"], ["AUROC", "recall"], name="value")
        >>> [text.get_text() for text in ax.texts], [text.get_color() for text in ax.texts]
        (['0.10', '0.90', '0.50', '0.70'], ['white', 'black', 'black', 'black'])
    """
    found = array(values, "values")
    if found.shape != (len(rows), len(columns)):
        raise InputError(f"values have shape {found.shape}, and there are {len(rows)} rows and {len(columns)} columns.")
    if limits is not None and not (isinstance(limits, (tuple, list)) and len(limits) == 2):
        raise ConfigError(f"limits must be two numbers, (low, high), or None; got {limits!r:.80}.")
    for limit in limits or ():
        check_number("limits", limit, -math.inf, math.inf)
    if limits is not None and limits[0] > limits[1]:
        raise ConfigError(f"limits are (low, high), with low not above high; got {limits!r:.80}.")
    rows, columns = ([fitted(plain(each), 2.2) for each in part] for part in (rows, columns))
    if ax is None:
        cell = 0.9
    else:  # the scale of the colors takes 15 %
        cell = 0.85 * new_axes(ax).bbox.width / ax.figure.dpi / len(columns)
    widest = max(map(width_of, columns))
    turned = widest > cell
    wider, higher = max(0.0, max(map(width_of, rows)) - 1.0), 0.7 * widest if turned else 0.0
    ax = new_axes(ax, (1.6 + 0.9 * len(columns) + wider, 1.0 + 0.4 * len(rows) + higher))
    low, high = (None, None) if limits is None else limits
    image = ax.imshow(found, cmap=cmap, vmin=low, vmax=high, aspect="auto")
    for (i, j), value in np.ndenumerate(found):
        color = ink(image.cmap(image.norm(value))) if math.isfinite(value) else "black"  # an infinite cell has no color
        ax.text(j, i, format(value, form), ha="center", va="center", color=color, fontsize=9)
    turn: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    ax.set_xticks(range(len(columns)), columns, **turn)
    ax.set_yticks(range(len(rows)), rows)
    ax.tick_params(length=0)
    ax.figure.colorbar(image, ax=ax, label=plain(name))
    return ax
