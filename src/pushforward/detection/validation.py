"""The check of an array of scores that calibration, metrics and tests share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.data.tables import plain_array
from pushforward.errors import InputError

__all__ = ["ROUNDING", "plain_array", "score_array"]

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
