"""`Coordinates`: the numbers of a table's row that distances and linear statistics read, by type of column."""

from __future__ import annotations

import math
from typing import Self

import numpy as np

from pushforward.detection.table.state import Arrays
from pushforward.detection.table_features import TableFeatures

__all__ = ["Coordinates"]

_MOST_CATEGORIES = 30
_MEAN = 0.5
"""Mean squared distance of two training rows in a categorical column."""
LARGEST = 1e100
_CATEGORICAL, _AS_IS = 1.0, 2.0


class Coordinates(Arrays):
    """From a feature matrix (values, then missing indicators) to coordinates for distances.

    Numbers, integers, booleans and missing indicators are coordinates as they are. A categorical column of m categories
    becomes one coordinate for each of its 30 most frequent ones, and one for all others (also unseen ones). Category k is
    the number c_k in its own coordinate and 0 in the others, so two rows with categories k and l differ by c_k^2 + c_l^2
    in squared distance, and rows of one category by nothing. c_k^2 is proportional to -log of the category's frequency
    (a rare category is farther away), with a mean over pairs of training rows of 1/2, a quarter of that of a standardized
    number. With as much, rows of rare categories are far from all others, which hides anomalies of other columns.

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
        sizes: list[np.ndarray] = []
        starts = [0]
        for column, categorical in zip(matrix.T, kinds, strict=True):
            if categorical:
                sizes.append(_sizes(column))
            starts.append(starts[-1] + (len(sizes[-1]) if categorical else 0))
        return cls(
            kind=np.where(circles, _AS_IS, np.array(kinds, dtype=np.float64)),
            sizes=np.concatenate(sizes) if sizes else np.zeros(0),
            starts=np.array(starts, dtype=np.float64),
        )

    def prepare(self) -> None:
        """The matrix column of each coordinate."""
        counts = np.where(self.kind == _CATEGORICAL, np.diff(self.starts), 1).astype(int)
        self.column = np.repeat(np.arange(len(self.kind)), counts)
        self.free = self.kind[self.column] == 0

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
            code = np.clip(matrix[:, i], 0, len(sizes) - 1).astype(int)
            rows[np.arange(len(matrix)), position[i] + code] = sizes[code]
        return rows

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.starts.shape == (len(self.kind) + 1,) and self.starts[0] == 0)
        self.require(self.starts[-1] == len(self.sizes))
        self.require(
            bool(np.all(np.diff(self.starts)[self.kind == _CATEGORICAL] >= 2)) and bool(np.all(self.sizes > 0))
        )
        self.require(not np.diff(self.starts)[self.kind != _CATEGORICAL].any())
        self.require(bool(np.all(np.isin(self.kind, (0.0, _CATEGORICAL, _AS_IS)))))


def _sizes(codes: np.ndarray) -> np.ndarray:
    """c_k of the most frequent categories and of all others."""
    n, kept = len(codes), min(int(codes.max()) + 1, _MOST_CATEGORIES)
    counts = np.bincount(np.minimum(codes.astype(int), kept), minlength=kept + 1)
    frequency = counts / n
    squares = np.array([-math.log(max(f, 1.0 / (n + 2))) if f < 1 else 1.0 / n for f in frequency])
    mean = 2.0 * float((frequency * (1.0 - frequency) * squares).sum())
    return np.sqrt(squares * (_MEAN / mean if mean > 0 else 1.0))
