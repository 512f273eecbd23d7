"""The yardstick of the pool: made rows, mixes or crosses of two training rows, which stand for anomalies that nobody has."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

__all__ = ["Yardstick", "separation", "weights"]

FOLDS = 4
_SHARPNESS = 4.0


@dataclass(frozen=True)
class Yardstick:
    """Rows that are made of pairs of training rows in one fold.

    - Mixes (:meth:`draw`): a x_i + (1 - a) x_j with a uniform in (0.3, 0.7). A mix lies among the training rows and, if their
      distribution is not convex, off it. A statistic that separates mixes from training rows knows where the rows are.
      Coded columns (categories, flags) have the value of one parent.
    - Crosses (:meth:`cross`): x_i with some columns of x_j, from one column to half of them, the logarithm of their number
      uniform. Each column is as usual and does not fit the others. They are for tables whose rows are like those of a
      normal distribution: a mix of these is nearer to the center than they are, so it is an anomaly for no statistic.

    Attributes:
        rows: made rows, ``(m, w)``.
        parents: indices of x_i and x_j, ``(m, 2)``.
        folds: fold of the parents, ``(m,)``.
    """

    rows: np.ndarray
    parents: np.ndarray
    folds: np.ndarray

    @classmethod
    def draw(
        cls, matrix: np.ndarray, folds: np.ndarray, coded: np.ndarray, count: int, generator: np.random.Generator
    ) -> Yardstick:
        """Draw mixes.

        Args:
            matrix: rows to mix, ``(n, w)``.
            folds: fold of each row, from 0; each has at least two rows.
            coded: whether each matrix column is a code or a flag, ``(w,)``.
            count: number of mixes.
            generator: source of randomness.
        """
        parents, fold = _pairs(folds, count, generator)
        if not count:
            return cls(matrix[:0], parents, fold)
        part = generator.uniform(0.3, 0.7, (count, 1))
        x, y = matrix[parents[:, 0]], matrix[parents[:, 1]]
        mixed = part * x + (1.0 - part) * y
        if coded.any():
            pick = generator.random(mixed.shape) < part
            mixed = np.where(coded, np.where(pick, x, y), mixed)
        return cls(mixed, parents, fold)

    @classmethod
    def cross(
        cls, matrix: np.ndarray, folds: np.ndarray, owners: np.ndarray, count: int, generator: np.random.Generator
    ) -> Yardstick:
        """Draw crosses.

        Args:
            matrix: rows to cross, ``(n, w)``.
            folds: fold of each row, from 0; each has at least two rows.
            owners: the table's column of each matrix column, ``(w,)``; there are at least two.
            count: number of crosses.
            generator: source of randomness.
        """
        parents, fold = _pairs(folds, count, generator)
        group = np.unique(owners, return_inverse=True)[1]
        columns = int(group.max()) + 1
        taken = np.rint(np.exp(generator.uniform(0.0, np.log(columns / 2), count))) if columns > 2 else np.ones(count)
        place = np.argsort(np.argsort(generator.random((count, columns)), axis=1), axis=1)
        other = (place < taken[:, None])[:, group]
        return cls(np.where(other, matrix[parents[:, 1]], matrix[parents[:, 0]]), parents, fold)


def _pairs(folds: np.ndarray, count: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two rows of one fold, ``(count, 2)``, and the fold of each pair."""
    fold = generator.integers(0, int(folds.max()) + 1, count)
    parents = np.empty((count, 2), dtype=np.int64)
    if not count:
        return parents, fold
    for k in range(int(folds.max()) + 1):
        members, chosen = np.flatnonzero(folds == k), fold == k
        first = generator.integers(0, len(members), int(chosen.sum()))
        other = (first + generator.integers(1, len(members), int(chosen.sum()))) % len(members)
        parents[chosen] = np.stack((members[first], members[other]), axis=1)
    return parents, fold


def separation(normal: np.ndarray, made: np.ndarray) -> float:
    """AUROC: probability that a made row has a larger value than a training row, ties count half."""
    from scipy.stats import rankdata  # slow to import

    ranks = rankdata(np.concatenate((normal, made)))
    m = len(made)
    return float((ranks[len(normal) :].sum() - m * (m + 1) / 2) / (m * len(normal)))


def weights(separations: np.ndarray, count: int) -> np.ndarray:
    """Weights of statistics with these AUROCs, which add up to 1.

    w_k is proportional to exp(4 z_k), z the normal quantile of the AUROC, for the ``count`` largest; the others have 0.
    """
    z = ndtri(np.clip(separations, 1e-3, 1 - 1e-3))
    weight = np.exp(_SHARPNESS * (z - z.max()))
    weight[np.argsort(-separations, kind="stable")[count:]] = 0.0
    return weight / weight.sum()
