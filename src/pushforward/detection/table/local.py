"""The Gaussian of a row's nearest training rows: local principal components as a distance and as a density."""

from __future__ import annotations

import numpy as np

from pushforward.kernels.neighbors import local_gaussian as squared_and_log_det

__all__ = ["local_gaussian"]

_RIDGE = 0.1


def local_gaussian(rows: np.ndarray, reference: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance and -log density of each row under the Gaussian of its neighbors.

    With the mean m and the covariance C of the neighbors and S = C + 0.1 (tr C / d) I, the distance is
    q = sqrt((x - m)^T S^-1 (x - m)). It is large off the local principal components, where neighbors vary little (as in
    manifold Parzen windows, Vincent and Bengio 2002). The -log density is log(det S) / 2 + (d / 2) log(1 + q^2 / d)
    without a constant: near the mean that of the Gaussian, and far from it a tail as heavy as that of a covariance of few
    rows (a multivariate t distribution whose degrees of freedom go to 0).

    Args:
        rows: ``(n, d)``.
        reference: ``(m, d)``.
        index: of the neighbors, ``(n, k)``.

    Returns:
        Distance and -log density, each ``(n,)``.
    """
    d = rows.shape[1]
    square, log_det = squared_and_log_det(rows, reference, index, _RIDGE)
    return np.sqrt(square), 0.5 * log_det + 0.5 * d * np.log1p(square / d)
