"""`Coordinates`: the numbers of a table's row that distances and linear statistics read, by type of column."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from pushforward.detection.table.agreement import agreement, rows_for
from pushforward.detection.table.state import Arrays
from pushforward.detection.table_features import TableFeatures

__all__ = ["Coordinates"]

_MOST_CATEGORIES = 30
_LEAST, _MOST = 0.005, 0.5
"""Mean squared distance of two training rows in a categorical column that the other columns tell nothing of, and in one that
they decide."""
LARGEST = 1e100
_CATEGORICAL, _AS_IS = 1.0, 2.0


class Coordinates(Arrays):
    """From a feature matrix (values, then missing indicators) to coordinates for distances.

    Numbers, integers, booleans and missing indicators are coordinates as they are. A categorical column of m categories
    becomes one coordinate for each of its 30 most frequent ones, and one for all others (also unseen ones). Category k is
    the number c_k in its own coordinate and 0 in the others, so two rows with categories k and l differ by c_k^2 + c_l^2
    in squared distance, and rows of one category by nothing. c_k^2 is proportional to -log of the category's frequency
    (a rare category is farther away), with a mean over pairs of training rows of 0.005 + 0.495 a; that of a standardized number
    is 2. a is the :func:`~pushforward.detection.table.agreement.agreement` of the nearest rows in the other columns: the
    categories of a column that has nothing to do with the others would only hide anomalies of these.

    cos and sin of an instant on the circle of a period are not scaled: the mean squared distance of two instants is 2.

    Args:
        kind: of each matrix column: 1.0 for categorical, 0.0 for a number, 2.0 for cos and sin of an instant, ``(w,)``.
        sizes: c_k of the categorical columns, one column after the other; the last of each is for all other categories.
        starts: index in ``sizes`` of the first category of each matrix column, and the length, ``(w + 1,)``.
    """

    kind: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray

    @classmethod
    def fit(cls, features: TableFeatures, matrix: np.ndarray) -> Self:
        """Fit to the feature matrix of training rows."""
        kinds = [features.schema.columns[i].kind == "categorical" for i in features.kept]
        kinds += [False] * len(features.indicators)
        circles = [False] * len(kinds) + [True] * (2 * len(features.calendar))
        kinds += [False] * (2 * len(features.calendar))
        coded = np.array(kinds)
        squares = [_squares(column) for column in matrix.T[coded]]
        if squares:
            some = matrix[rows_for(len(matrix), len(squares))]
            codes = [_kept(column, len(square)) for column, square in zip(some.T[coded], squares, strict=True)]
            told = agreement(some[:, ~coded], codes, squares)
            squares = [(_LEAST + (_MOST - _LEAST) * a) * s / _MOST for a, s in zip(told, squares, strict=True)]
        lengths = np.zeros(len(kinds))
        lengths[coded] = [len(square) for square in squares]
        return cls(
            kind=np.where(circles, _AS_IS, coded.astype(np.float64)),
            sizes=np.sqrt(np.concatenate(squares)) if squares else np.zeros(0),
            starts=np.concatenate((np.zeros(1), np.cumsum(lengths))),
        )

    def prepare(self) -> None:
        """The matrix column of each coordinate."""
        counts = np.where(self.kind == _CATEGORICAL, np.diff(self.starts), 1).astype(int)
        self.column = np.repeat(np.arange(len(self.kind)), counts)
        self.free = self.kind[self.column] == 0
        self.on_circle = self.kind[self.column] == _AS_IS

    def is_categorical(self, column: int) -> bool:
        """Whether a matrix column has codes of categories."""
        return bool(self.kind[column] == _CATEGORICAL)

    def sizes_of(self, column: int) -> np.ndarray:
        """c_k of a categorical matrix column."""
        return self.sizes[int(self.starts[column]) : int(self.starts[column + 1])]

    def __call__(self, matrix: np.ndarray) -> np.ndarray:
        """Coordinates of rows of the feature matrix, ``(n, w)`` to ``(n, d)``; numbers beyond 1e100 become that."""
        matrix = np.clip(matrix, -LARGEST, LARGEST)  # squares must not overflow
        categorical = self.kind == _CATEGORICAL
        if not categorical.any():
            return matrix
        rows = np.zeros((len(matrix), len(self.column)))
        rows[:, ~categorical[self.column]] = matrix[:, ~categorical]
        position = np.flatnonzero(np.r_[True, self.column[1:] != self.column[:-1]])
        for i in np.flatnonzero(categorical):
            sizes = self.sizes[int(self.starts[i]) : int(self.starts[i + 1])]
            code = _kept(matrix[:, i], len(sizes))
            rows[np.arange(len(matrix)), position[i] + code] = sizes[code]
        return rows

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.starts.shape == (len(self.kind) + 1,) and self.starts[0] == 0)
        self.require(self.starts[-1] == len(self.sizes) and np.array_equal(self.starts, np.rint(self.starts)))
        self.require(
            bool(np.all(np.diff(self.starts)[self.kind == _CATEGORICAL] >= 2)) and bool(np.all(self.sizes > 0))
        )
        self.require(not np.diff(self.starts)[self.kind != _CATEGORICAL].any())
        self.require(bool(np.all(np.isin(self.kind, (0.0, _CATEGORICAL, _AS_IS)))))


def _kept(codes: np.ndarray, count: int) -> np.ndarray:
    """Index of each category's coordinate among ``count``; the last one is for all others."""
    return np.clip(codes, 0, count - 1).astype(int)


def _squares(codes: np.ndarray) -> np.ndarray:
    """c_k^2 of the most frequent categories and of all others, with a mean over pairs of rows of 1/2."""
    n, kept = len(codes), min(int(codes.max()) + 1, _MOST_CATEGORIES)
    frequency = np.bincount(_kept(codes, kept + 1), minlength=kept + 1) / n
    squares = np.array([-math.log(max(f, 1.0 / (n + 2))) if f < 1 else 1.0 / n for f in frequency])
    mean = 2.0 * float((frequency * (1.0 - frequency) * squares).sum())
    return squares * (_MOST / mean if mean > 0 else 1.0)
