"""The Gaussian of a row's nearest training rows: local principal components as a distance and as a density."""

from __future__ import annotations

import numpy as np

__all__ = ["local_gaussian"]

RIDGE = 0.1
SMALLEST = 1e-9
_PART = 1 << 21


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
    k, d = index.shape[1], rows.shape[1]
    distance, density = np.empty(len(rows)), np.empty(len(rows))
    size = max(1, _PART // (k * d))
    for a in range(0, len(rows), size):
        part = slice(a, a + size)
        near = reference[index[part]]
        mean = near.mean(1)
        near = near - mean[:, None]
        offset = rows[part] - mean
        trace = np.einsum("nkd,nkd->n", near, near) / (k * d)
        ridge = RIDGE * trace + SMALLEST
        if d <= k:  # the covariance itself
            matrix = np.matmul(near.transpose(0, 2, 1), near) / k
            matrix[:, np.arange(d), np.arange(d)] += ridge[:, None]
            factor = np.linalg.cholesky(matrix)
            z = np.linalg.solve(factor, offset[:, :, None])[..., 0]
            square = (z * z).sum(1)
            log_det = 2 * np.log(factor[:, np.arange(d), np.arange(d)]).sum(1)
        else:  # Woodbury: the Gram matrix of the neighbors
            matrix = np.matmul(near, near.transpose(0, 2, 1)) / k
            matrix[:, np.arange(k), np.arange(k)] += ridge[:, None]
            factor = np.linalg.cholesky(matrix)
            projected = np.matmul(near, offset[:, :, None])
            z = np.linalg.solve(factor, projected)[..., 0]
            square = ((offset * offset).sum(1) - (z * z).sum(1) / k) / ridge
            log_det = 2 * np.log(factor[:, np.arange(k), np.arange(k)]).sum(1) + (d - k) * np.log(ridge)
        square = np.maximum(square, 0.0)
        distance[part] = np.sqrt(square)
        density[part] = 0.5 * log_det + 0.5 * d * np.log1p(square / d)
    return distance, density
