"""`Reasons`: how unusual each column of a row is, given the other columns and by itself."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.linear import Linear
from pushforward.detection.table.state import Arrays

__all__ = ["Reasons"]

_LEVELS = np.linspace(0.0, 1.0, 201)
_BEYOND = 0.9


class Reasons(Arrays):
    """How unusual each coordinate is: the mean of two -log tail probabilities among training rows.

    One is that of the coordinate given the others, abs(z_j) of :class:`~pushforward.detection.table.linear.Linear` on
    training rows on which the Gaussian was not fitted, so a column that is always hard to predict is not reported for it.
    The other is that of the coordinate by itself, its distance from the middle in the soft space. A column far outside its
    range makes correlated columns look wrong given it, but only its own second number is large; up to the 90th percentile
    that number is log 10. Beyond this percentile the tails are exponential.

    Args:
        given: quantiles of abs(z_j) among training rows, ascending, ``(201, d)``.
        given_slope: mean excess of abs(z_j) over the 90th percentile, ``(d,)``.
        alone: quantiles of the distance from the middle, ``(201, d)``.
        alone_slope: its mean excess, ``(d,)``.
    """

    given: np.ndarray
    given_slope: np.ndarray
    alone: np.ndarray
    alone_slope: np.ndarray

    @classmethod
    def fit(cls, conditional: np.ndarray, placed: np.ndarray) -> Self:
        """Fit to training rows.

        Args:
            conditional: z-scores given the other coordinates, by a Gaussian that was not fitted on the row, ``(n, d)``.
            placed: the same rows in the soft space, ``(n, d)``.
        """
        given, given_slope = _quantiles(np.abs(conditional))
        alone, alone_slope = _quantiles(np.abs(placed))
        return cls(given=given, given_slope=given_slope, alone=alone, alone_slope=alone_slope)

    def nats(self, linear: Linear, placed: np.ndarray) -> np.ndarray:
        """How unusual each coordinate is, ``(n, d)``.

        Args:
            linear: the Gaussian.
            placed: rows in the soft space.
        """
        given = _tail(np.abs(linear.conditional(placed)), self.given, self.given_slope)
        alone = _tail(np.abs(placed), self.alone, self.alone_slope)
        return 0.5 * (given + np.maximum(alone, -np.log(1.0 - _BEYOND)))

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        for usual, slope in ((self.given, self.given_slope), (self.alone, self.alone_slope)):
            self.require(usual.shape == (len(_LEVELS), len(self.given_slope)) and slope.shape == usual.shape[1:])
            self.require(bool(np.all(slope > 0) and np.all(np.diff(usual, axis=0) >= 0)))


def _quantiles(sizes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Quantiles of each column, and the mean excess over the 90th percentile."""
    usual = np.quantile(sizes, _LEVELS, axis=0)
    start = usual[round(_BEYOND * (len(_LEVELS) - 1))]
    over = sizes > start
    slope = np.where(over, sizes - start, 0.0).sum(0) / np.maximum(over.sum(0), 1)
    return np.maximum.accumulate(usual, axis=0), np.maximum(slope, 1e-6 * (1.0 + start))


def _tail(sizes: np.ndarray, usual: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """-log tail probability of each cell by the quantiles of its column, ``(n, d)``."""
    start = usual[round(_BEYOND * (len(_LEVELS) - 1))]
    result = np.empty(sizes.shape)
    for j, size in enumerate(sizes.T):
        inside = -np.log(np.maximum(1.0 - np.interp(size, usual[:, j], _LEVELS), 1.0 - _BEYOND))
        result[:, j] = np.where(size > start[j], -np.log(1.0 - _BEYOND) + (size - start[j]) / slope[j], inside)
    return result
