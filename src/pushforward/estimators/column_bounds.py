"""Bounds of the columns of a table, for `FlowDensity`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np

from pushforward.errors import ConfigError, InputError
from pushforward.transforms import Bounds

__all__ = ["bounds_of", "check_angles_free", "check_inside", "check_radians", "plain_bounds"]

_FORM = (
    "bounds must be a pair (low, high) for each column, None for an open end, or a dictionary of pairs by column name"
)


def bounds_of(bounds: Any, features: int, names: Sequence[str] | None) -> Bounds | None:
    """The transform of a table whose columns have bounds; None if no column has any.

    Args:
        bounds: of :class:`~pushforward.estimators.FlowDensity`.
        features: number of columns.
        names: of the columns, or None.

    Raises:
        ConfigError: for anything but pairs of numbers, an unknown column, or a low that is not below its high.
    """
    if bounds is None:
        return None
    pairs: list[Any] = [None] * features
    if isinstance(bounds, Mapping):
        known = {} if names is None else {str(name): k for k, name in enumerate(names)}
        for name, pair in bounds.items():
            if name not in known:
                has = f"it has {', '.join(known)}" if known else "its columns have no names, so give a list of pairs"
                raise ConfigError(f"bounds name the column {name!r}, which the table does not have: {has}.")
            pairs[known[name]] = pair
    elif isinstance(bounds, Sequence) and not isinstance(bounds, str):
        if len(bounds) != features:
            raise ConfigError(
                f"bounds must have one pair or None for each of the {features} columns; got {len(bounds)}."
            )
        pairs = list(bounds)
    else:
        raise ConfigError(f"{_FORM}; got {bounds!r:.80}.")
    ends = [(None, None) if pair is None else _ends(pair) for pair in pairs]
    if all(end == (None, None) for end in ends):
        return None
    return Bounds(features, low=tuple(low for low, _ in ends), high=tuple(high for _, high in ends))


def check_inside(bounds: Bounds, rows: np.ndarray) -> None:
    """Check that the rows for training are inside the bounds.

    Raises:
        InputError: for a row that is outside, or on a bound, where a density that is fitted to it has no limit.
    """
    low = np.array([-math.inf if end is None else end for end in bounds.low])
    high = np.array([math.inf if end is None else end for end in bounds.high])
    for wrong, what, advice in (
        ((rows < low) | (rows > high), "outside", "give wider bounds, or leave such rows out"),
        ((rows == low) | (rows == high), "on an end of", "give slightly wider bounds, or leave such rows out, since a density there has no limit"),
    ):  # fmt: skip
        if wrong.any():
            row, column = np.argwhere(wrong)[0]
            raise InputError(
                f"{int(wrong.any(1).sum())} of {len(rows)} rows have a value {what} the bounds of its column; the first is "
                f"{rows[row, column]:g} at row {row}, column {column}, with bounds {low[column]:g} and {high[column]:g}: {advice}."
            )


def check_angles_free(bounds: Bounds, angles: Sequence[int]) -> None:
    """Check that no angle has bounds: a flow of angles would read the logarithms of distances to the bounds as angles.

    Raises:
        ConfigError: for one that has.
    """
    for column in angles:
        if bounds.low[column] is not None or bounds.high[column] is not None:
            raise ConfigError(
                f"column {column} is an angle (circular) and has bounds: leave its bounds out, since a circle from -pi to pi has no ends; "
                "for a number between two bounds that is no angle, leave it out of circular."
            )


def check_radians(rows: np.ndarray, angles: Sequence[int]) -> None:
    """Check that the columns that are angles are in [-pi, pi].

    Raises:
        InputError: for one that is not.
    """
    wrong = np.abs(rows[:, list(angles)]) > math.pi + 1e-6  # pi in float32 is above pi
    if wrong.any():
        row, position = np.argwhere(wrong)[0]
        column = angles[position]
        raise InputError(
            f"{int(wrong.any(1).sum())} of {len(rows)} rows have an angle outside [-pi, pi]; the first is {rows[row, column]:g} at row "
            f"{row}, column {column}: angles are in radians, and np.remainder(x + np.pi, 2 * np.pi) - np.pi maps any angle to its equal there."
        )


def plain_bounds(bounds: Any) -> Any:
    """Bounds as plain JSON types, which :func:`bounds_of` reads in the same way."""
    if bounds is None:
        return None
    if isinstance(bounds, Mapping):
        return {str(name): None if pair is None else list(_ends(pair)) for name, pair in bounds.items()}
    return [None if pair is None else list(_ends(pair)) for pair in bounds]


def _ends(pair: Any) -> tuple[float | None, float | None]:
    """Both ends of a pair; an infinite end is an open one."""
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise ConfigError(f"{_FORM}; got {pair!r:.80}.")
    found: list[float | None] = []
    for end, open_end in zip(pair, (-math.inf, math.inf), strict=True):
        if end is not None and (not isinstance(end, Real) or isinstance(end, bool) or math.isnan(end)):
            raise ConfigError(f"{_FORM}; got {pair!r:.80}.")
        found.append(None if end is None or end == open_end else float(end))
    return found[0], found[1]
