"""`Reasons`: training rows and residuals by which the cells of a row are compared with those of similar rows."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.table.state import Arrays

__all__ = ["Reasons", "rows_to_store"]

LEVELS = np.linspace(0.0, 1.0, 201)
_BEYOND = 0.9
_MOST = 1000
_LEAST = 200
_CELLS = 50_000


def rows_to_store(width: int) -> int:
    """Number of training rows for reasons: 1000, or fewer of a wide table, because each row is compared with each."""
    return min(_MOST, max(_LEAST, _CELLS // max(1, width)))


class Reasons(Arrays):
    """What reasons need: rows to compare with, and how well a column follows from the others.

    A column is a group of coordinates of the feature matrix: its value and, if it has one, its missing indicator.
    ``conditional.py`` predicts a coordinate from the others, ``usual_cells.py`` says what is usual, ``replacement.py`` replaces cells.

    Args:
        rows: training rows of the feature matrix, ``(m, w)``.
        residual: of each coordinate given the others, by a Gaussian of the soft space that was not fitted on the row,
            ``(m, d)``.
        group: the column of each column of the feature matrix, 0, 1, ..., ``(w,)``.
        gain: how much of the mean error of similar rows corrects a prediction, from 0 to 1, ``(d,)``.
        spread: standard deviation of the error of the prediction, ``(d,)``.
        given: quantiles of the size of standardized errors, ascending, ``(201, d)``.
        slope: mean excess of this size over the 90th percentile, ``(d,)``.
        by_column: 1 if the coordinates of a value do not predict each other, ``(1,)``; 0 in files of earlier versions, whose residuals
            are those given all other coordinates.
    """

    rows: np.ndarray
    residual: np.ndarray
    group: np.ndarray
    gain: np.ndarray
    spread: np.ndarray
    given: np.ndarray
    slope: np.ndarray
    by_column: np.ndarray

    @classmethod
    def unpack(cls, tensors: dict[str, Tensor], prefix: str) -> Self:
        """As for all records; earlier versions had no ``by_column``."""
        tensors.setdefault(f"{prefix}by_column", torch.zeros(1, dtype=torch.float64))
        return super().unpack(tensors, prefix)

    def apart(self, column: np.ndarray, circle: np.ndarray) -> np.ndarray:
        """Coordinates with the same number do not predict each other, ``(d,)``: those of a value and its places on circles.

        A missing indicator predicts the value of its column: what is usual is asked of cells that have a value.

        Args:
            column: matrix column of each coordinate, ``(d,)``.
            circle: whether a coordinate is cos or sin of an instant, boolean ``(d,)``.
        """
        alone = np.arange(len(column)) + self.count
        of_value = (column < self.count) | circle  # the values are the first columns of the matrix
        return np.where(of_value, self.groups[column], alone) if bool(self.by_column[0]) else alone

    def prepare(self) -> None:
        """Groups as integers."""
        self.groups = self.group.astype(int)
        self.count = int(self.groups.max()) + 1 if self.groups.size else 0

    @classmethod
    def start(cls, rows: np.ndarray, residual: np.ndarray, group: np.ndarray) -> Self:
        """Reasons whose errors are unknown yet; see :func:`~pushforward.detection.table.conditional.calibrate`."""
        d = residual.shape[1]
        return cls(
            rows=rows, residual=residual, group=group, gain=np.ones(d), spread=np.maximum(residual.std(0), 1e-9),
            given=np.zeros((len(LEVELS), d)), slope=np.ones(d), by_column=np.ones(1),
        )  # fmt: skip

    def with_residuals(self, residual: np.ndarray) -> Self:
        """With the residuals of the rows, ``(m, d)``."""
        return self.replace(residual=residual, spread=np.maximum(residual.std(0), 1e-9))

    def with_errors(self, sizes: np.ndarray) -> Self:
        """With the quantiles of the sizes of standardized errors ``(m, d)`` among training rows."""
        given = np.maximum.accumulate(np.quantile(sizes, LEVELS, axis=0), axis=0)
        start = given[round(_BEYOND * (len(LEVELS) - 1))]
        over = sizes > start
        slope = np.where(over, sizes - start, 0.0).sum(0) / np.maximum(over.sum(0), 1)
        return self.replace(given=given, slope=np.maximum(slope, 1e-6 * (1.0 + start)))

    def half_width(self, level: float) -> np.ndarray:
        """Size of standardized errors that a fraction ``level`` of the training rows does not exceed, ``(d,)``."""
        return self.given[round(level * (len(LEVELS) - 1))]

    @property
    def least(self) -> float:
        """The smallest p-value that so many training rows can say, 1 / (m + 1)."""
        return 1.0 / (len(self.rows) + 1)

    def tail(self, sizes: np.ndarray) -> np.ndarray:
        """P(size at least as large) among training rows, ``(n, d)``; exponential beyond the 90th percentile, where it may be below :attr:`least`."""
        start = self.half_width(_BEYOND)
        found = np.empty(sizes.shape)
        for j, size in enumerate(sizes.T):
            inside = np.maximum(1.0 - np.interp(size, self.given[:, j], LEVELS), 1.0 - _BEYOND)
            beyond = (1.0 - _BEYOND) * np.exp(-np.maximum(size - start[j], 0.0) / self.slope[j])
            found[:, j] = np.where(size > start[j], beyond, inside)
        return found

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        m, d, w = len(self.rows), len(self.spread), len(self.group)
        self.require(self.by_column.shape == (1,))
        self.require(m > 0 and self.rows.shape == (m, w) and self.residual.shape == (m, d))
        self.require(self.gain.shape == (d,) and bool(np.all((self.gain >= 0) & (self.gain <= 1))))
        self.require(self.given.shape == (len(LEVELS), d) and self.slope.shape == (d,))
        self.require(
            bool(np.all(self.slope > 0) and np.all(self.spread > 0) and np.all(np.diff(self.given, axis=0) >= 0))
        )
        self.require(bool(np.all(np.isin(self.group, np.arange(w)))) and len(np.unique(self.groups)) == self.count)
