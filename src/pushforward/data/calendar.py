"""Instants on the circles of the day, the week and the year."""

from __future__ import annotations

import numpy as np

from pushforward.data.instants import ends_of

__all__ = ["DIGITS_OF_SINE", "PERIODS", "calendar_columns", "periods_of"]

PERIODS = {"day": 86_400.0, "week": 604_800.0, "year": 31_556_952.0}
"""Lengths in seconds; the year is the mean one of the Gregorian calendar."""

DIGITS_OF_SINE = 12
"""Decimals of cos and sin, so that instants at the same height of the circle, such as 6 and 18 h, are ties in every runtime."""

_LEAST = {"day": 2.0, "week": 3.0, "year": 1.5}  # periods that the training rows must span


def periods_of(seconds: np.ndarray, time: str) -> tuple[str, ...]:
    """The periods that a column of instants shows.

    A time of day has the day. Timestamps and dates have each period of which the column spans a few (two days, three weeks,
    one and a half years), where a few instants far from all others do not count, and dates have no day. Durations have none.

    Args:
        seconds: the cells of training rows, NaN where missing, ``(n,)``.
        time: the kind of instants, see :class:`~pushforward.data.Column`.

    Example:
        >>> periods_of(np.arange(0.0, 30 * 86400, 3600), "timestamp")
        ('day', 'week')
    """
    if time == "time":
        return ("day",)
    if time not in ("timestamp", "timestamp_utc", "date"):
        return ()
    present = seconds[np.isfinite(seconds)]
    first, last = ends_of(present) if present.size else (0.0, 0.0)
    span = last - first
    whole_days = bool(np.all(np.mod(present, PERIODS["day"]) == 0))
    return tuple(
        name for name, period in PERIODS.items() if span >= _LEAST[name] * period and not (name == "day" and whole_days)
    )


def calendar_columns(seconds: np.ndarray, period: str) -> np.ndarray:
    """cos and sin of 2 pi t / period to 12 decimals, ``(n, 2)``, the same for t and t + period; (0, 0) where an instant is not finite.

    Example:
        >>> calendar_columns(np.array([0.0, 21_600.0]), "day")
        array([[1., 0.],
               [0., 1.]])
    """
    finite = np.isfinite(seconds)
    # The remainder is exact, so the same time of different days is the same point, and not one beside it.
    angle = 2.0 * np.pi * (np.mod(np.where(finite, seconds, 0.0), PERIODS[period]) / PERIODS[period])
    circle = np.round(np.stack((np.cos(angle), np.sin(angle)), axis=1), DIGITS_OF_SINE)
    return np.where(finite[:, None], circle, 0.0)
