"""Density estimates of a few statistics, fitted in closed form or by scikit-learn and stored as tensors."""

from __future__ import annotations

import math
import warnings

import numpy as np
import torch
from torch import Tensor

from pushforward.detection.scores.mahalanobis import shrunk_whitening
from pushforward.numerics.checks import check_seed

__all__ = ["gaussian", "gmm", "kde", "log_gaussians", "log_kde"]


def gaussian(rows: Tensor, owner: str) -> tuple[Tensor, Tensor, Tensor]:
    """Fit one normal with a shrunk covariance (Ledoit and Wolf 2004), in the format of :func:`log_gaussians`."""
    mean, whitening = shrunk_whitening(rows, owner)
    return rows.new_zeros(1), mean[None], whitening[None]


def gmm(rows: Tensor, components: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Fit a mixture of at most ``components`` normals by expectation-maximization, in the format of :func:`log_gaussians`."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    count = min(
        components, max(1, len(rows) // (5 * rows.shape[1]))
    )  # each component needs enough rows for its covariance
    mixture = GaussianMixture(count, reg_covar=1e-2, max_iter=200, random_state=check_seed(seed) % 2**32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the last iterate is still a valid density
        mixture.fit(rows.cpu().numpy())
    learned = (mixture.weights_, mixture.means_, mixture.precisions_cholesky_)
    weights, means, whitenings = (torch.from_numpy(np.ascontiguousarray(part)).to(rows) for part in learned)
    return weights.log(), means, whitenings


def log_gaussians(rows: Tensor, log_weights: Tensor, means: Tensor, whitenings: Tensor) -> Tensor:
    """log sum_c w_c N(row; m_c, (W_c W_c^T)^-1), ``(n,)``.

    Args:
        rows: ``(n, k)``.
        log_weights: ``(c,)``.
        means: ``(c, k)``.
        whitenings: W, ``(c, k, k)``.
    """
    logs = []
    for log_weight, mean, whitening in zip(log_weights, means, whitenings, strict=True):
        # No matrix product: its rounding of a row depends on the row's position in the batch.
        white = ((rows - mean).unsqueeze(-1) * whitening).sum(-2)
        volume = torch.linalg.slogdet(whitening)[1] - 0.5 * rows.shape[1] * math.log(2 * math.pi)
        logs.append(log_weight + volume - 0.5 * white.square().sum(1))
    return torch.logsumexp(torch.stack(logs), 0)


def kde(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The columns as points, and the bandwidth of each column, 0.9 min(std, IQR / 1.34) n^(-1/5) (Silverman 1986, eq. 3.31)."""
    std = rows.std(0, correction=0)
    quartiles = torch.quantile(rows, rows.new_tensor([0.25, 0.75]), 0)
    robust = (quartiles[1] - quartiles[0]) / 1.34
    spread = torch.where(robust > 0, torch.minimum(std, robust), std)
    return rows.T.contiguous(), torch.where(spread > 0, 0.9 * spread * len(rows) ** -0.2, 1.0)


def log_kde(rows: Tensor, points: Tensor, bandwidths: Tensor) -> Tensor:
    """Sum over columns of log (1/m) sum_j N(t; point_j, h^2), ``(n,)``: a product of one-dimensional estimates.

    Args:
        rows: ``(n, k)``.
        points: ``(k, m)``.
        bandwidths: ``(k,)``.
    """
    total = torch.zeros_like(rows[:, 0])  # len() would fix the number of rows in an export
    for column, centers, bandwidth in zip(rows.T, points, bandwidths, strict=True):
        deviation = (column[:, None] - centers) / bandwidth
        norm = bandwidth.log() + 0.5 * math.log(2 * math.pi) + math.log(len(centers))
        total = total + torch.logsumexp(-0.5 * deviation.square(), 1) - norm
    return total
