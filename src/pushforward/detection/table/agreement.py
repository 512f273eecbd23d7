"""How well the nearest rows in all other columns agree on a category, beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from scipy.special import ndtri
from scipy.stats import rankdata

__all__ = ["agreement", "rows_for"]

_NEIGHBORS = 5
_ROWS, _PAIRS = 1000, 50_000_000
_EQUAL = 1e-9  # relative difference of equal distances, which are sums in another order


def agreement(numbers: np.ndarray, codes: Sequence[np.ndarray], squares: Sequence[np.ndarray]) -> np.ndarray:
    """For each categorical column, (a - c) / (1 - c), and 0 where that is negative.

    a is the mean fraction of the five nearest rows in all other columns that have the row's category; rows at equal
    distances all count. c is the fraction of pairs of rows with one category. So 0 says that the other columns tell
    nothing of the category, and 1 that they decide it.

    Args:
        numbers: the other columns, ``(n, d)``; their normal scores are compared.
        codes: category of each row, ``(n,)`` for each categorical column.
        squares: c_k^2 of its categories: rows of categories k and l differ by c_k^2 + c_l^2 in squared distance.
    """
    from scipy.spatial.distance import cdist

    n = len(codes[0])
    found = np.zeros(len(codes))
    if n < 2:
        return found
    scores = _normal_scores(numbers)
    total = cdist(scores, scores, "sqeuclidean")

    def distance(column: int) -> np.ndarray:
        square = squares[column][codes[column]]
        return np.where(codes[column][:, None] == codes[column], 0.0, square[:, None] + square)

    for i in range(len(codes)):
        total += distance(i)
    k = min(_NEIGHBORS, n - 1)
    for i, code in enumerate(codes):
        others = total - distance(i)
        np.fill_diagonal(others, math.inf)
        farthest = np.partition(others, k - 1, axis=1)[:, k - 1 : k]
        near = others <= farthest * (1 + _EQUAL) + _EQUAL
        agree = float((((code[:, None] == code) & near).sum(1) / near.sum(1)).mean())
        counts = np.bincount(code)
        chance = float((counts * (counts - 1)).sum()) / (n * (n - 1))
        found[i] = max(agree - chance, 0.0) / (1.0 - chance) if chance < 1 else 0.0
    return found


def rows_for(n: int, columns: int) -> np.ndarray:
    """Indices of at most 1,000 of n rows, evenly spaced, and of fewer where there are more than 50 categorical columns."""
    most = min(n, _ROWS, max(2, math.isqrt(_PAIRS // columns)))
    return np.linspace(0, n - 1, most).round().astype(int)


def _normal_scores(numbers: np.ndarray) -> np.ndarray:
    """Normal quantiles of the ranks of each column, at variance 1; zeros for a constant column."""
    scores = np.zeros(numbers.shape)
    for i, column in enumerate(numbers.T):
        score = ndtri((rankdata(column) - 0.5) / len(column))
        spread = score.std()
        scores[:, i] = score / spread if spread > 0 else 0.0
    return scores
