"""Linear statistics of a table: Mahalanobis distance, each column given the others, principal components."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.state import Arrays

__all__ = ["LINEAR_STATISTICS", "Linear"]

LINEAR_STATISTICS = ("mahalanobis", "conditional_sum", "conditional_max", "residual")

_EXPLAINED = 0.8


class Linear(Arrays):
    """A Gaussian with a shrunk covariance (Ledoit and Wolf 2004) of rows of one space.

    With the precision P, coordinate j given the others has the z-score z_j = (P (x - m))_j / sqrt(P_jj).

    - ``mahalanobis``: sqrt((x - m)^T P (x - m)).
    - ``conditional_sum``, ``conditional_max``: sum of z_j^2, and the largest abs(z_j).
    - ``residual``: distance from the principal components that explain 80 % of the variance.

    Args:
        mean: ``(d,)``.
        precision: ``(d, d)``.
        residual: directions that are not among these components, ``(d, r)``.
    """

    mean: np.ndarray
    precision: np.ndarray
    residual: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> Self:
        """Fit to rows ``(n, d)``."""
        from sklearn.covariance import ledoit_wolf  # slow to import

        mean = rows.mean(0)
        covariance = np.atleast_2d(ledoit_wolf(rows - mean, assume_centered=True)[0])
        d = len(mean)
        covariance[np.arange(d), np.arange(d)] += 1e-9 * (1.0 + np.trace(covariance) / d)
        variances, directions = np.linalg.eigh(covariance)
        explained = np.cumsum(variances[::-1]) / variances.sum()
        count = min(int(np.searchsorted(explained, _EXPLAINED)) + 1, d - 1)
        residual = directions[:, : d - count]
        return cls(mean=mean, precision=np.linalg.inv(covariance), residual=residual)

    def conditional(self, rows: np.ndarray) -> np.ndarray:
        """z-score of each coordinate given the others, ``(n, d)``."""
        return (rows - self.mean) @ self.precision / np.sqrt(np.diag(self.precision))

    def score(self, rows: np.ndarray, wanted: set[str]) -> dict[str, np.ndarray]:
        """The wanted statistics of rows ``(n, d)``, each ``(n,)``."""
        offset = rows - self.mean
        found: dict[str, np.ndarray] = {}
        if wanted - {"residual"}:
            weighted = offset @ self.precision
            z = np.abs(weighted) / np.sqrt(np.diag(self.precision))
            found["mahalanobis"] = np.sqrt(np.maximum((offset * weighted).sum(1), 0.0))
            found["conditional_sum"] = (z * z).sum(1)
            found["conditional_max"] = z.max(1)
        if "residual" in wanted:
            found["residual"] = np.sqrt(((offset @ self.residual) ** 2).sum(1))
        return {name: found[name] for name in wanted}

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        d = len(self.mean)
        self.require(self.precision.shape == (d, d) and self.residual.ndim == 2 and len(self.residual) == d)
        self.require(bool(np.all(np.diag(self.precision) > 0)))
