"""The picture of a stream's test martingale."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pushforward.numerics.checks import check_number
from pushforward.plot.axes import GRAY, LINES, groups_of, legend, mark, new_axes, tidy, turns, unnamed
from pushforward.plot.names import label_of

__all__ = ["martingale"]


def martingale(
    log_evidence: Any, alpha: float = 0.01, *, ax: Any = None, change_at: float | None = None, start: int = 1
) -> Any:
    """Draw the evidence against "the stream is as before", and the level at which there is an alarm.

    A test martingale reaches 1/alpha with a probability of at most alpha if nothing changes, at any time (Ville 1939).

    Args:
        log_evidence: log M after each score, nats, ``(m,)``: what ``monitor.update`` returns, or several of these by name.
        alpha: of the monitor.
        ax: matplotlib axes; new ones by default.
        change_at: position of a known change, which is marked; None for none.
        start: position of the first score.

    Returns:
        The axes; the y axis is log10 M.

    Raises:
        InputError: for NaN or nothing.
        ConfigError: without matplotlib, or unless 0 < alpha < 1.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> monitor = pf.detection.Monitor(reference=rng.normal(size=500), alpha=0.01)
        >>> ax = pf.plot.martingale(monitor.update(rng.normal(0.5, 1, size=300)), monitor.alpha)
        >>> ax.get_ylabel()
        'log10 of the evidence'
    """
    level = -math.log10(check_number("alpha", alpha, 0, 1))
    groups = {key: v.ravel() for key, v in groups_of(log_evidence, "log_evidence", "evidence").items()}
    ax = tidy(new_axes(ax, (6.5, 3.4)))
    for (color, turn), (key, v) in zip(turns(ax, len(groups)), groups.items(), strict=True):
        marker = "o" if len(v) == 1 else ""  # one point has no line
        style = {"color": color, "linestyle": LINES[turn], "marker": marker}
        ax.plot(np.arange(start, start + len(v)), v / math.log(10), linewidth=1.6, label=label_of(key), **style)
    alarm = f"alarm (alpha = {alpha:g})"
    if unnamed(ax, alarm):
        ax.axhline(level, color="black", linewidth=1.2, linestyle="--", label=alarm)
    if change_at is not None:
        mark(ax, change_at, "change", color=GRAY, linewidth=1.2, linestyle=":")
    ax.set(xlabel="number of scores", ylabel="log10 of the evidence")
    legend(ax)
    return ax
