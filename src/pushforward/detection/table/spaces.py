"""Spaces in which the rows of a table are compared: standardized, soft tails, normal scores, whitened."""

from __future__ import annotations

from typing import Self

import numpy as np
from scipy.special import ndtri

from pushforward.detection.table.state import Arrays

__all__ = ["SPACES", "Spaces"]

SPACES = ("standard", "soft", "normal", "white")

FARTHEST = 1e6  # standard deviations; beyond this the squares of distances would lose the other columns
SOFT_WIDTH = 3.0  # robust deviations
_KNOTS = 1000


class Spaces(Arrays):
    """Four representations of rows of coordinates, fitted on training rows.

    - ``standard``: (x - mean) / standard deviation, clipped far out.
    - ``soft``: z = (x - median) / scale, with the scale of the quartiles between a tenth and ten standard deviations;
      beyond 3 it continues as sign(z) (3 + 3 log(abs(z) / 3)), so that one heavy tail does not dominate a distance.
    - ``normal``: normal quantile of the rank, interpolated, and continued linearly outside the training range.
    - ``white``: ``standard``, decorrelated by a shrunk covariance (Ledoit and Wolf 2004).

    Coordinates that are already on a common scale (of categories) pass unchanged through the first three.

    Args:
        center, spread: mean and standard deviation of each coordinate, ``(d,)``.
        median, scale: of ``soft``, ``(d,)``.
        free: 1.0 for a coordinate to scale, 0.0 for one that passes unchanged, ``(d,)``.
        knots, ranks: values and normal quantiles of ``normal``, one coordinate after the other.
        starts: index of the first knot of each coordinate, and the number of knots, ``(d + 1,)``.
        whitening: ``(d, d)``.
    """

    center: np.ndarray
    spread: np.ndarray
    median: np.ndarray
    scale: np.ndarray
    free: np.ndarray
    knots: np.ndarray
    ranks: np.ndarray
    starts: np.ndarray
    whitening: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, free: np.ndarray) -> Self:
        """Fit to training rows.

        Args:
            rows: ``(n, d)``, finite.
            free: whether each coordinate is to be scaled.
        """
        center = np.where(free, rows.mean(0), 0.0)
        spread = np.where(free, rows.std(0), 1.0)
        for i in np.flatnonzero(spread <= 1e-12 * np.abs(center)):
            spread[i] = _spread_of_integers(rows[:, i])
        low, median, high = np.quantile(rows, (0.25, 0.5, 0.75), axis=0)
        scale = np.clip((high - low) / 1.349, 0.1 * spread, 10 * spread)
        scale = np.where((high > low) & free, scale, spread)
        knots, ranks, starts = [], [], [0]
        for column, is_free in zip(rows.T, free, strict=True):
            values, score = _knots(column) if is_free else (np.zeros(1), np.zeros(1))
            knots.append(values)
            ranks.append(score)
            starts.append(starts[-1] + len(values))
        self = cls(
            center=center, spread=spread, median=np.where(free, median, 0.0), scale=scale,
            free=free.astype(np.float64), knots=np.concatenate(knots), ranks=np.concatenate(ranks),
            starts=np.array(starts, dtype=np.float64), whitening=np.eye(len(center)),
        )  # fmt: skip
        return self.replace(whitening=_whitening(self("standard", rows)))

    def __call__(self, space: str, rows: np.ndarray) -> np.ndarray:
        """Rows of coordinates ``(n, d)`` in a space, ``(n, d)``."""
        if space == "soft":
            z = (rows - self.median) / self.scale
            size = np.maximum(np.abs(z), SOFT_WIDTH)
            soft = np.sign(z) * SOFT_WIDTH * (1.0 + np.log(size / SOFT_WIDTH))
            return np.where(size > SOFT_WIDTH, soft, z)
        z = np.clip((rows - self.center) / self.spread, -FARTHEST, FARTHEST)
        if space == "normal":
            return self._normal_scores(rows, z)
        return z @ self.whitening if space == "white" else z

    def from_soft(self, rows: np.ndarray) -> np.ndarray:
        """Coordinates of rows of the soft space, ``(n, d)`` to ``(n, d)``."""
        size = np.maximum(np.abs(rows), SOFT_WIDTH)
        far = np.sign(rows) * SOFT_WIDTH * np.exp(np.minimum(size / SOFT_WIDTH - 1.0, 700.0))
        return self.median + self.scale * np.where(size > SOFT_WIDTH, far, rows)

    def _normal_scores(self, rows: np.ndarray, z: np.ndarray) -> np.ndarray:
        scores = np.array(z)
        for i in np.flatnonzero(self.free):
            a, b = int(self.starts[i]), int(self.starts[i + 1])
            knots, ranks = self.knots[a:b], self.ranks[a:b]
            inside = np.interp(rows[:, i], knots, ranks)
            # One standard deviation beyond the range counts as one unit.
            beyond = z[:, i] - np.clip((rows[:, i].clip(knots[0], knots[-1]) - self.center[i]) / self.spread[i],
                                       -FARTHEST, FARTHEST)  # fmt: skip
            scores[:, i] = inside + beyond
        return scores

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        d = len(self.center)
        self.require(d > 0 and all(getattr(self, n).shape == (d,) for n in ("spread", "median", "scale", "free")))
        self.require(self.starts.shape == (d + 1,) and self.whitening.shape == (d, d))
        self.require(self.starts[0] == 0 and self.starts[-1] == len(self.knots) == len(self.ranks))
        self.require(bool(np.all(np.diff(self.starts) >= 1) and np.all(self.spread > 0) and np.all(self.scale > 0)))
        self.require(np.array_equal(self.starts, np.rint(self.starts)) and bool(np.all(np.isin(self.free, (0.0, 1.0)))))
        inside = np.delete(np.arange(len(self.knots)), self.starts[:-1].astype(int))  # knots that have one before them
        self.require(bool(np.all(self.knots[inside] > self.knots[inside - 1])))
        self.require(bool(np.all(self.ranks[inside] >= self.ranks[inside - 1])))


def _spread_of_integers(column: np.ndarray) -> float:
    """Standard deviation of large integers that differ by little; 1 for other columns, whose differences are rounding."""
    if np.any(column != np.rint(column)):
        return 1.0
    spread = float((column - column[0]).std())  # without the rounding of the mean
    return spread if spread > 0 else 1.0


def _knots(column: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distinct values of a column, at most 1000, and the normal quantiles of their middle ranks."""
    values, counts = np.unique(column, return_counts=True)
    ranks = ndtri((np.cumsum(counts) - counts / 2) / len(column))
    if len(values) > _KNOTS:
        chosen = np.unique(np.linspace(0, len(values) - 1, _KNOTS).round().astype(int))
        values, ranks = values[chosen], ranks[chosen]
    return values, ranks


def _whitening(rows: np.ndarray) -> np.ndarray:
    from sklearn.covariance import ledoit_wolf  # slow to import

    variances, directions = np.linalg.eigh(ledoit_wolf(rows)[0])
    return directions / np.sqrt(np.maximum(variances, 1e-12 * variances[-1]) if variances[-1] > 0 else 1.0)
