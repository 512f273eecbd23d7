"""`Ends`: numbers beyond the short end of a skewed column, where distances see nothing."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.state import Arrays

__all__ = ["COST", "FARTHEST", "SMALLEST", "Ends", "either"]

COST = 2.0  # nats: how much less such a row counts than the same surprise of the statistics
_SHORT = 2 / 3  # of the distance from the median to the other end
_SHARE, _LEAST = 0.05, 10  # of the rows, and rows, of a tail
_FEWEST = 5  # different from the threshold: with fewer there is no slope
_ROWS = 10 * _LEAST  # with fewer rows a tail would be more than a tenth of them, and nothing is beyond an end
_INNER = 0.0025  # quantile that stands for an end where extreme rows must not be stored
_NEAREST = 1e-6  # of the smallest training value of a positive column: nothing is nearer to 0
FARTHEST = 1e3  # mean excesses
SMALLEST = float(np.finfo(np.float64).tiny)


class Ends(Arrays):
    """u = -log P(a number is beyond a short end) + e / b - 2, at least 0, of such a row; 0 for all other rows.

    An end is short where the 5 % quantile of its side is nearer to the median than two thirds of the distance to that of the other
    side, as the lower end of a positive, skewed column. A number beyond it is near to all rows in every space, as 0.0001 is where
    numbers are about 0.1. Distances see what is beyond other ends, and a column that grows with time, such as a counter, has no short end.

    e is the largest excess among the columns: abs(log(r / r_end)) in units of its mean in the tail (Hill 1975), with r the value in
    a column of positive numbers, and the distance from the median elsewhere. P and b are those of training rows that took no part.

    Args:
        ends: smallest and largest training value, or nearly extreme quantiles, ``(2, d)``.
        origin: 0 for columns of positive numbers, else the median, ``(d,)``.
        slope: 1 / mean excess; 0 where the tail has too few different values, ``(2, d)``.
        short: 1.0 for a short end, ``(2, d)``.
        level: -log P, ``(1,)``.
        mean: b, at least 1, ``(1,)``.
    """

    ends: np.ndarray
    origin: np.ndarray
    slope: np.ndarray
    short: np.ndarray
    level: np.ndarray
    mean: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, free: np.ndarray, folds: np.ndarray, *, extremes: bool = True) -> Self | None:
        """Fit to training rows; None if there are too few, or no short end.

        Args:
            rows: coordinates, ``(n, d)``.
            free: whether each coordinate is a number, ``(d,)``.
            folds: fold of each row; whether it is beyond an end is asked of the other folds, ``(n,)``.
            extremes: whether the smallest and largest values are stored, and not the quantiles 0.0025 and 0.9975.
        """
        low, median, high = np.quantile(rows, (_SHARE, 0.5, 1.0 - _SHARE), axis=0)
        short = np.stack((median - low < _SHORT * (high - median), high - median < _SHORT * (median - low))) & free
        if len(rows) < _ROWS or not short.any():
            return None
        parts = [cls._start(rows[folds != k], short, extremes).excess(rows[folds == k]) for k in np.unique(folds)]
        excess = np.concatenate(parts)
        beyond = excess[excess >= 0]
        level = np.log((len(rows) + 1) / (len(beyond) + 0.5))
        mean = (beyond.sum() + 1.0) / (len(beyond) + 1.0)
        return cls._start(rows, short, extremes).replace(level=np.array([level]), mean=np.array([max(1.0, mean)]))

    @classmethod
    def _start(cls, rows: np.ndarray, short: np.ndarray, extremes: bool) -> Self:
        ordered = np.sort(rows, axis=0)
        self = cls(
            ends=np.quantile(ordered, (0.0, 1.0) if extremes else (_INNER, 1.0 - _INNER), axis=0),
            origin=np.where(ordered[0] > 0, 0.0, np.median(ordered, axis=0)),
            slope=np.zeros(short.shape), short=short.astype(np.float64), level=np.zeros(1), mean=np.ones(1),
        )  # fmt: skip
        count = min(max(_LEAST, int(np.ceil(_SHARE * len(rows)))), len(rows) - 1)
        distance = self._distance(ordered)
        return self.replace(slope=np.stack((_slope(distance[count::-1]), _slope(distance[-count - 1 :]))))

    def prepare(self) -> None:
        """log r of the ends, and r of the nearest value to 0 that counts."""
        self.positive = self.ends[0] > self.origin
        self.nearest = _NEAREST * (self.ends[0] - self.origin)
        self.distances = self._distance(self.ends)

    def _distance(self, rows: np.ndarray) -> np.ndarray:
        """log r, ``(n, d)``."""
        r = rows - self.origin
        return np.log(np.maximum(np.where(self.positive, np.maximum(r, self.nearest), np.abs(r)), SMALLEST))

    def excess(self, rows: np.ndarray) -> np.ndarray:
        """e of rows of coordinates ``(n, d)``; -1 for rows that are beyond no short end, ``(n,)``."""
        under = rows < self.ends[0]
        beyond = np.where(under, self.short[0] > 0, (rows > self.ends[1]) & (self.short[1] > 0))
        slope = np.where(under, self.slope[0], self.slope[1])
        end = np.where(under, self.distances[0], self.distances[1])
        size = np.minimum(slope * np.abs(self._distance(rows) - end), FARTHEST)
        return np.where(beyond, size, -1.0).max(1)

    def score(self, rows: np.ndarray) -> np.ndarray:
        """u of rows of coordinates, nats, ``(n,)``."""
        excess = self.excess(rows)
        return np.where(excess >= 0, np.maximum(self.level[0] - COST + excess / self.mean[0], 0.0), 0.0)

    def reaching(self, rows: np.ndarray) -> Self:
        """The same with ends that contain these rows; a column of positive numbers stays one."""
        low, high = np.minimum(self.ends[0], rows.min(0)), np.maximum(self.ends[1], rows.max(0))
        low = np.where(self.positive, np.maximum(low, self.origin + self.nearest), low)
        return self.replace(ends=np.stack((low, high)))

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.origin.ndim == 1 and self.origin.size > 0)
        self.require(self.ends.shape == self.slope.shape == self.short.shape == (2, len(self.origin)))
        self.require(bool(np.all(self.ends[0] <= self.ends[1]) and np.all(self.slope >= 0)))
        self.require(self.level.shape == self.mean.shape == (1,) and bool(self.level[0] >= 0 and self.mean[0] >= 1))


def _slope(distance: np.ndarray) -> np.ndarray:
    """1 / mean distance from the first row of a tail, ``(d,)``, of ``(count + 1, d)``."""
    size = np.abs(distance[1:] - distance[0])
    different, total = (size > 0).sum(0), size.sum(0)
    return np.where(different >= _FEWEST, different / np.where(total > 0, total, 1.0), 0.0)


def either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """log(exp(a) + exp(b) - 1) of numbers of at least 0: the other one where one of them is 0."""
    larger, smaller = np.maximum(a, b), np.minimum(a, b)
    return larger + np.log1p(np.exp(smaller - larger) - np.exp(-larger))
