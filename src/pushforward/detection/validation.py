"""Checks of arguments that calibration, metrics and tests share: arrays of scores, fractions, counts."""

from __future__ import annotations

import math
import numbers
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.errors import ConfigError, InputError

__all__ = ["ROUNDING", "count", "fraction", "score_array"]

ROUNDING = 1.0 + 1e-12
"""Tolerance on a bound that is compared with a ratio of counts: without it the rounding of ``alpha = 1 - 0.9`` or
``0.29 * 100`` would change a count by one. It is far smaller than any ratio of counts of real data."""


def score_array(values: ArrayLike, name: str, *, may_be_empty: bool = False) -> NDArray[np.float64]:
    """Convert values to a one-dimensional float64 array; infinities are allowed.

    Args:
        values: array, list, series or CPU tensor of real numbers, shape (n,).
        name: of the values in an error, in the plural ("the normal scores").
        may_be_empty: whether n = 0 is allowed.

    Raises:
        InputError: for another shape, for values that are not real numbers, for NaN, and for no values.
    """
    try:
        array = np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{name} must be a one-dimensional array of numbers: {error}") from error
    if array.ndim != 1:
        raise InputError(f"{name} must be one-dimensional, one number for each row; got shape {array.shape}.")
    if array.size == 0:
        if may_be_empty:
            return np.empty(0)
        raise InputError(f"{name} are empty; give at least one.")
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} must be real numbers; got dtype {array.dtype}.")
    array = array.astype(np.float64)
    missing = np.flatnonzero(np.isnan(array))
    if missing.size:
        raise InputError(
            f"{name} have {missing.size} NaN among {array.size} values, the first at index {missing[0]}: NaN has no rank."
        )
    return array


def fraction(
    value: Any, name: str, *, low: float = 0.0, closed: Literal["neither", "left", "right", "both"] = "neither"
) -> float:
    """Check that a value is a number between ``low`` and 1, and return it as a float.

    Args:
        value: of the argument.
        name: of the argument.
        low: lower end of the interval.
        closed: which ends belong to the interval.

    Raises:
        ConfigError: if the value is not a number, or is outside.
    """
    real = isinstance(value, numbers.Real) and not isinstance(value, bool)
    number = float(value) if real else math.nan
    left, right = closed in ("left", "both"), closed in ("right", "both")
    if low < number < 1 or (left and number == low) or (right and number == 1):
        return number
    raise ConfigError(
        f"{name} must be a number in {'[' if left else '('}{low:g}, 1{']' if right else ')'}; got {value!r}."
    )


def count(value: Any, name: str) -> int:
    """Check that a value is an integer of at least 1, and return it as an int.

    Raises:
        ConfigError: if it is not.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be an integer of at least 1; got {value!r}.")
    return int(value)
