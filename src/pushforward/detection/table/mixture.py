"""-log density of a Gaussian mixture on the principal components."""

from __future__ import annotations

import warnings
from typing import Any, Self

import numpy as np

from pushforward.detection.table.state import Arrays

__all__ = ["MIXTURE_STATISTICS", "Mixture"]

MIXTURE_STATISTICS = ("mixture",)

_COMPONENTS = 20
_DIRECTIONS = 30
_PRIOR_ROWS = 10.0


class Mixture(Arrays):
    """A mixture of up to 20 Gaussians on 30 principal components, and one variance for what remains.

    Each covariance is shrunk towards the mean of the pooled covariance and its diagonal, with the weight of ten rows.

    Args:
        mean: ``(d,)``.
        directions: principal components, ``(d, r)``.
        means: of the Gaussians, ``(k, r)``.
        factors: F with F F^T the inverse covariance, ``(k, r, r)``.
        weights: log weight plus half the log determinant of the inverse covariance, ``(k,)``.
        remaining: variance of each remaining coordinate, ``(1,)``; 0 if none remains.
    """

    mean: np.ndarray
    directions: np.ndarray
    means: np.ndarray
    factors: np.ndarray
    weights: np.ndarray
    remaining: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray, seed: int = 0) -> Self:
        """Fit to rows ``(n, d)`` by expectation maximization."""
        from sklearn.mixture import GaussianMixture  # slow to import

        mean = rows.mean(0)
        offset = rows - mean
        n, d = rows.shape
        r = min(d, _DIRECTIONS)
        directions = np.eye(d) if r == d else np.linalg.eigh(offset.T @ offset)[1][:, ::-1][:, :r]
        z = offset @ directions
        count = max(1, min(_COMPONENTS, n // (3 * r + 10), len(np.unique(z, axis=0))))
        fitted: Any = GaussianMixture(
            count, reg_covar=1e-3 * z.var(0).mean() + 1e-6, random_state=seed, max_iter=60, tol=1e-2
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # 60 steps are enough here
            fitted.fit(z)
        pooled = np.einsum("k,kij->ij", fitted.weights_, fitted.covariances_)
        prior = 0.5 * pooled + 0.5 * np.diag(np.diag(pooled))
        rows_of = (fitted.weights_ * n)[:, None, None]
        covariances = (rows_of * fitted.covariances_ + _PRIOR_ROWS * prior) / (rows_of + _PRIOR_ROWS)
        factors = np.linalg.inv(np.linalg.cholesky(covariances)).transpose(0, 2, 1)
        log_det = np.log(np.abs(np.diagonal(factors, axis1=1, axis2=2))).sum(1)
        rest = max(float(((offset - z @ directions.T) ** 2).mean()) * d / (d - r), 1e-9) if r < d else 0.0
        return cls(
            mean=mean, directions=directions, means=fitted.means_, factors=factors,
            weights=np.log(fitted.weights_) + log_det, remaining=np.array([rest]),
        )  # fmt: skip

    def sample(self, count: int, generator: np.random.Generator) -> np.ndarray:
        """Draw rows of the space, ``(count, d)``."""
        log_det = np.log(np.abs(np.diagonal(self.factors, axis1=1, axis2=2))).sum(1)
        share = np.exp(self.weights - log_det)
        which = generator.choice(len(share), count, p=share / share.sum())
        noise = generator.normal(size=(count, self.means.shape[1]))
        z = self.means[which] + np.linalg.solve(self.factors.transpose(0, 2, 1)[which], noise[:, :, None])[..., 0]
        rest = generator.normal(size=(count, len(self.mean))) * np.sqrt(self.remaining[0])
        rest -= (rest @ self.directions) @ self.directions.T
        return self.mean + z @ self.directions.T + rest

    def score(self, rows: np.ndarray, wanted: set[str]) -> dict[str, np.ndarray]:
        """-log density of rows ``(n, d)`` without its constant, ``{"mixture": (n,)}``."""
        offset = rows - self.mean
        z = offset @ self.directions
        terms = np.empty((len(rows), len(self.means)))
        for k, (center, factor) in enumerate(zip(self.means, self.factors, strict=True)):
            y = (z - center) @ factor
            terms[:, k] = self.weights[k] - 0.5 * (y * y).sum(1)
        largest = terms.max(1)
        value = -(largest + np.log(np.exp(terms - largest[:, None]).sum(1)))
        if self.remaining[0] > 0:
            beyond = np.maximum((offset * offset).sum(1) - (z * z).sum(1), 0.0)
            value = value + 0.5 * beyond / self.remaining[0]
        return {"mixture": value}

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        d, r, k = len(self.mean), self.directions.shape[1], len(self.weights)
        self.require(self.directions.shape == (d, r) and self.means.shape == (k, r) and k > 0)
        self.require(self.factors.shape == (k, r, r) and self.remaining.shape == (1,) and self.remaining[0] >= 0)
