"""Columns whose values lie on a lattice ``origin + step * integer``: counts, rounded numbers, scaled integers."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushforward.data.tables import plain_array
from pushforward.errors import InputError

__all__ = ["MAX_CELLS", "detect_lattice", "integer_lattice"]

MAX_CELLS = 1_000_000
"""A column on a lattice with more cells than this is treated as continuous."""

_TIES = 0.05  # fraction of rows that must repeat a value
_MAX_DECIMALS = 9
_CHANCE = 1e-4  # largest probability that a step which is not a decimal fits by chance
# Relative rounding of the values: of float64 arithmetic first, then of numbers that were written with fewer digits.
_ROUNDINGS = (2.0**-52, 1e-13, 1e-11, 1e-9)
_FLOAT32 = 2.0**-23


def detect_lattice(values: Any) -> tuple[float, float] | None:
    """Find origin and step of the lattice of a column, or return None for a column to treat as continuous.

    The likelihood of a continuous density is unbounded at values that repeat, so such columns must be found and
    dequantized. The result is a lattice only if all of these are true:

    - at least one row in twenty repeats the value of another row (the rows of a continuous column do not, and without
      ties there is nothing to dequantize);
    - every value is origin + step * integer up to rounding (one part in 1e9 of the largest value, or the rounding of
      float32 if all values are float32), and the step is far above that rounding;
    - the range has at most a million cells. If the step is not a decimal (0.1, 0.25), the cells must also be so few that
      random values would not fit any such lattice: some fine lattice is always close to a few values.

    Args:
        values: one column of numbers; NaN and infinities are ignored.

    Returns:
        ``(origin, step)``, the smallest value and the largest step that fits, or None.

    Raises:
        InputError: for anything but numbers.

    Example:
        >>> import numpy as np
        >>> origin, step = detect_lattice(np.array([0.3, 0.1, 0.3, 0.6, 0.1]))
        >>> round(origin, 12), round(step, 12)
        (0.1, 0.1)
        >>> detect_lattice(np.random.default_rng(0).normal(size=1000)) is None
        True
    """
    array = plain_array(values, "the values")
    if array.dtype.kind not in "fiub":
        raise InputError(f"a column of numbers is needed to find a lattice; got {array.dtype}.")
    column = array.astype(np.float64).ravel()
    column = column[np.isfinite(column)]
    distinct = np.unique(column)
    if distinct.size < 2 or column.size - distinct.size < _TIES * column.size:
        return None
    if not 1e-150 < np.abs(distinct).max() < 1e150:  # squares and differences must not overflow
        return None
    if np.all(np.abs(distinct) < 2.0**53) and np.all(distinct == np.rint(distinct)):
        return integer_lattice(distinct)
    with np.errstate(over="ignore"):
        single = bool(np.all(distinct.astype(np.float32) == distinct))
    for eps in (*_ROUNDINGS, _FLOAT32) if single else _ROUNDINGS:
        found = _decimal_lattice(distinct, eps) or _step_lattice(distinct, eps)
        if found is not None:
            return found
    return None


def integer_lattice(values: np.ndarray) -> tuple[float, float] | None:
    """Smallest value and greatest common step of whole numbers below 2^53; None for one value or more than a million cells."""
    ticks = np.unique(values).astype(np.int64)
    if ticks.size < 2:
        return None
    step = int(np.gcd.reduce(np.diff(ticks)))
    if (int(ticks[-1]) - int(ticks[0])) // step > MAX_CELLS:
        return None
    return float(ticks[0]), float(step)


def _decimal_lattice(distinct: np.ndarray, eps: float) -> tuple[float, float] | None:
    """The lattice of numbers written with at most nine decimals; None if these are not."""
    largest = np.abs(distinct).max()
    tolerance = 4 * eps * largest
    for decimals in range(1, _MAX_DECIMALS + 1):
        power = 10.0**decimals
        if 1 / power < 64 * tolerance or largest * power >= 2.0**53:
            return None
        ticks = np.rint(distinct * power)
        if np.all(np.abs(ticks / power - distinct) <= tolerance):
            found = integer_lattice(ticks)
            return None if found is None else (found[0] / power, found[1] / power)
    return None


def _step_lattice(distinct: np.ndarray, eps: float) -> tuple[float, float] | None:
    """The lattice of any step: Euclid's algorithm on the gaps with a tolerance, then a least-squares step, checked."""
    tolerance = 4 * eps * np.abs(distinct).max()
    distinct = distinct[
        np.diff(distinct, prepend=-np.inf) > 4 * tolerance
    ]  # values that differ by rounding only are one value
    if distinct.size < 2:
        return None
    gaps = np.diff(distinct)
    span = distinct[-1] - distinct[0]
    smallest = max(span / MAX_CELLS, 64 * tolerance)
    step = gaps.min()
    while step >= smallest:
        ticks = np.rint(gaps / step)
        rest = np.abs(gaps - ticks * step)
        # The step is known to `tolerance`, so k steps are known to k times that.
        off = rest > np.minimum(4 * tolerance * (1 + ticks), step / 4)
        if not off.any():
            break
        step = rest[off].min()
    else:
        return None
    index = np.concatenate(([0.0], np.cumsum(ticks)))
    if index[-1] > MAX_CELLS:
        return None
    offsets = distinct - distinct[0]
    step = float(offsets @ index / (index @ index))
    if np.any(np.abs(offsets - step * index) > 2 * tolerance):
        return None
    # About cells^2 lattices have at most this many cells. Two values determine one; each other value fits it by chance
    # with the probability 4 * tolerance / step.
    chance = 2 * np.log(index[-1]) + (distinct.size - 2) * np.log(min(1.0, 4 * tolerance / step))
    return (float(distinct[0]), step) if distinct.size == 2 or chance < np.log(_CHANCE) else None
