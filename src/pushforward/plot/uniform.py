"""Pictures that compare what was promised with what happened: p-values and coverage, with the band that theory gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushforward.errors import InputError
from pushforward.numerics.checks import check_integer, check_number
from pushforward.plot.axes import BAND, LINES, array, groups_of, legend, new_axes, tidy, turns, unnamed
from pushforward.plot.names import label_of, plain

__all__ = ["coverage", "p_values"]

_LEVELS = np.linspace(0.0, 1.0, 201)


def p_values(
    p: Any, *, ax: Any = None, calibration: int | None = None, confidence: float = 0.95, log: bool = False
) -> Any:
    """Draw the fraction of p-values at or below each level, which is the level itself if they are uniform.

    The band contains the curve of uniform p-values, at each level, with probability ``confidence``. m independent p-values
    below the level a are Binomial(m, a) many. Conformal p-values share n calibration scores, so they depend on each other, and
    with k = floor(a (n + 1)) they are BetaBinomial(m, k, n + 1 - k) many (Vovk 2012; Bates et al. 2023): a wider band.

    Args:
        p: p-values ``(m,)``, or p-values of several groups by name; the band is for the size of the first
            in the axes.
        ax: matplotlib axes; new ones by default.
        calibration: number of calibration rows, ``guard.calibrator_.n``; None for independent p-values.
        confidence: probability of the band at each level.
        log: whether to draw logarithmic axes, which show small p-values.

    Returns:
        The axes.

    Raises:
        InputError: for numbers outside [0, 1].
        ConfigError: without matplotlib, or for an option out of range.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> ax = pf.plot.p_values(np.random.default_rng(0).uniform(size=200))
        >>> ax.get_xlabel()
        'level of the p-value'
    """
    groups = {key: np.sort(v.ravel()) for key, v in groups_of(p, "p-values", "observed").items()}
    if any(v[0] < 0 or v[-1] > 1 for v in groups.values()):
        raise InputError("p-values are numbers from 0 to 1.")
    check_integer("calibration", calibration, optional=True)
    count = len(next(iter(groups.values())))
    levels = _LEVELS
    if log:
        smallest = 1 / (count if calibration is None else calibration + 1)
        levels = np.geomspace(min(0.5, max(smallest, 1e-8)), 1, 201)
    low, high = _band(levels, count, calibration, check_number("confidence", confidence, 0, 1))
    ax = tidy(new_axes(ax, (4.6, 4.2)))
    styles, band = turns(ax, len(groups)), f"{100 * confidence:g} % if uniform"
    if unnamed(ax, band):
        ax.fill_between(levels, low, high, color=BAND, linewidth=0, label=band)
        ax.plot(levels, levels, color="black", linewidth=0.8, linestyle="--")
    for (color, turn), (key, v) in zip(styles, groups.items(), strict=True):
        ax.plot(levels, _below(v, levels), color=color, linewidth=1.8, linestyle=LINES[turn], label=label_of(key))
    if log:
        ax.set(xscale="log", yscale="log", xlim=(levels[0], 1), ylim=(levels[0] / 3, 1))
    else:
        ax.set(xlim=(0, 1), ylim=(0, 1))
    ax.set(xlabel="level of the p-value", ylabel="fraction at or below the level")
    legend(ax)
    return ax


def coverage(
    levels: Any,
    fractions: Any,
    *,
    ax: Any = None,
    count: int | None = None,
    confidence: float = 0.95,
    difference: bool = False,
    name: str = "promised coverage",
) -> Any:
    """Draw the observed coverage of regions against the promised one.

    Args:
        levels: promised coverages ``(L,)``, from 0 to 1, in any order.
        fractions: observed ones ``(L,)``, or several of them by name.
        ax: matplotlib axes; new ones by default.
        count: number of independent cases of which ``fractions`` are means; gives the band of a binomial proportion.
        confidence: probability of the band at each level.
        difference: whether to draw observed minus promised, in which small deviations are visible.
        name: of the levels.

    Returns:
        The axes.

    Raises:
        InputError: for numbers outside [0, 1], or different lengths.
        ConfigError: without matplotlib, or for an option out of range.

    Example:
        >>> import pushforward as pf
        >>> ax = pf.plot.coverage([0.5, 0.8, 0.9], [0.52, 0.79, 0.88], count=100)
        >>> ax.get_ylabel()
        'observed coverage'
    """
    grid = array(levels, "levels").ravel()
    groups = {key: v.ravel() for key, v in groups_of(fractions, "fractions", "observed").items()}
    if any(v.shape != grid.shape for v in groups.values()):
        raise InputError("there must be one fraction for each level.")
    if any(v.min() < 0 or v.max() > 1 for v in [grid, *groups.values()]):
        raise InputError("levels and fractions are numbers from 0 to 1.")
    order = np.argsort(grid, kind="stable")
    grid, groups = grid[order], {key: v[order] for key, v in groups.items()}
    ax = tidy(new_axes(ax, (4.6, 4.2)))
    styles, base = turns(ax, len(groups)), grid if difference else np.zeros_like(grid)
    wide = grid
    if len(grid) == 1:  # the band and the line of one level need a width
        wide = grid + np.array([-0.02, 0.02])
        ax.margins(x=1)
    if count is not None:
        low, high = _band(grid, check_integer("count", count), None, check_number("confidence", confidence, 0, 1))
        shown = f"{100 * confidence:g} % if right"
        if unnamed(ax, shown):
            ax.fill_between(wide, low - base, high - base, color=BAND, linewidth=0, label=shown)
    ax.plot(wide, np.zeros_like(wide) if difference else wide, color="black", linewidth=0.8, linestyle="--")
    for (color, turn), (key, v) in zip(styles, groups.items(), strict=True):
        style = {"color": color, "linestyle": LINES[turn], "marker": "o" if len(grid) == 1 else ""}
        ax.plot(grid, v - base, linewidth=1.8, label=label_of(key), **style)
    ax.set(xlabel=plain(name), ylabel="observed minus promised" if difference else "observed coverage")
    legend(ax)
    return ax


def _below(sorted_values: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Fraction of values at or below each level; the tolerance is for levels that are multiples of 1 / (n + 1)."""
    return np.searchsorted(sorted_values, levels * (1 + 1e-12), side="right") / len(sorted_values)


def _band(levels: np.ndarray, count: int, calibration: int | None, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy.stats import betabinom, binom

    tails = (1 - confidence) / 2, (1 + confidence) / 2
    if calibration is None:
        low, high = (binom.ppf(q, count, levels) / count for q in tails)
        return low, high
    rows = check_integer("calibration", calibration)
    ranks = np.floor(levels * (rows + 1) * (1 + 1e-12)).astype(int)
    inside = (ranks > 0) & (ranks < rows + 1)
    low, high = (ranks > rows).astype(float), (ranks > rows).astype(float)
    for found, q in ((low, tails[0]), (high, tails[1])):
        found[inside] = betabinom.ppf(q, count, ranks[inside], rows + 1 - ranks[inside]) / count
    return low, high
