"""Features of images without a trained network, and the distance of two sets of rows by their first two moments."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["frechet", "principal"]


def principal(rows: Tensor) -> Callable[[Tensor], Tensor]:
    """Whitened principal components of images ``(n, ...)``: a fixed feature space for a kernel distance (not the FID)."""
    flat = rows[:2000].flatten(1).float()
    mean = flat.mean(0)
    _, values, axes = torch.linalg.svd(flat - mean, full_matrices=False)
    keep = min(30, len(values) - 1)
    scale = (values[:keep] / math.sqrt(len(flat))).clamp(min=1e-6)
    return lambda x: (x.flatten(1).float() - mean) @ axes[:keep].mT / scale


def frechet(x: Tensor, y: Tensor) -> float:
    """Distance of the normals with the rows' means and covariances, squared: the "FID" of plain columns (Dowson and Landau 1982)."""
    x, y = x.double(), y.double()
    first, second = x.T.cov(), y.T.cov()
    values, axes = torch.linalg.eigh(first)
    root = axes * values.clamp(min=0.0).sqrt() @ axes.T
    middle = torch.linalg.eigvalsh(root @ second @ root).clamp(min=0.0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + first.trace() + second.trace() - 2 * middle).item()
