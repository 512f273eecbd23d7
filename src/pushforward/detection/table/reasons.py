"""`Reasons`: how unusual each column of a row is, given the other columns and by itself."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.linear import Linear
from pushforward.detection.table.state import Arrays
from pushforward.detection.table.tails import Tails

__all__ = ["Reasons"]

_KNOTS = 201
_BEYOND = 0.9


class Reasons(Arrays):
    """-log tail probability of each coordinate: the larger of that given the other coordinates and that by itself.

    Given the others, the statistic is abs(z_j) of :class:`~pushforward.detection.table.linear.Linear`, and its tail
    probability is that among training rows on which the Gaussian was not fitted, so a column that is always hard to
    predict is not reported for it. Beyond the 90th percentile the tail is exponential. By itself, it is t_j of
    :class:`~pushforward.detection.table.tails.Tails`.

    Args:
        usual: quantiles of abs(z_j) among training rows, ascending, ``(201, d)``.
        slope: mean excess of abs(z_j) over the 90th percentile, ``(d,)``.
    """

    usual: np.ndarray
    slope: np.ndarray

    @classmethod
    def fit(cls, conditional: np.ndarray) -> Self:
        """Fit to z-scores of training rows on which the Gaussian was not fitted, ``(n, d)``."""
        size = np.abs(conditional)
        usual = np.quantile(size, np.linspace(0.0, 1.0, _KNOTS), axis=0)
        start = np.quantile(size, _BEYOND, axis=0)
        over = size > start
        slope = np.where(over, size - start, 0.0).sum(0) / np.maximum(over.sum(0), 1)
        return cls(usual=usual, slope=np.maximum(slope, 1e-6 * (1.0 + start)))

    def nats(self, linear: Linear, placed: np.ndarray, tails: Tails, rows: np.ndarray) -> np.ndarray:
        """-log tail probability of each coordinate, ``(n, d)``.

        Args:
            linear: the Gaussian.
            placed: rows in its space.
            tails: of the coordinates.
            rows: of coordinates.
        """
        size = np.abs(linear.conditional(placed))
        result = np.empty(size.shape)
        levels = np.linspace(0.0, 1.0, _KNOTS)
        start = self.usual[round(_BEYOND * (_KNOTS - 1))]
        for j in range(size.shape[1]):
            inside = -np.log(np.maximum(1.0 - np.interp(size[:, j], self.usual[:, j], levels), 1.0 - _BEYOND))
            beyond = -np.log(1.0 - _BEYOND) + (size[:, j] - start[j]) / self.slope[j]
            result[:, j] = np.where(size[:, j] > start[j], beyond, inside)
        return np.maximum(result, tails.by_column(rows))

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.usual.ndim == 2 and len(self.usual) == _KNOTS and self.slope.shape == self.usual.shape[1:])
        self.require(bool(np.all(self.slope > 0) and np.all(np.diff(self.usual, axis=0) >= 0)))
