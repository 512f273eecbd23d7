"""The distribution of Kolmogorov and Smirnov's distance of two samples: exact where one of them is small."""

from __future__ import annotations

import numpy as np

__all__ = ["kolmogorov_smirnov"]

_SMALL, _STEPS = 50, 10**6
"""Size of the smaller sample, and product of both sizes, up to which the distribution is exact."""


def kolmogorov_smirnov(distance: float, n: int, m: int) -> float:
    """P(D >= distance) for samples of n and m rows of one continuous distribution; with ties it is smaller.

    Where one sample is small, the orders of both are counted as paths in a grid (Hodges 1958, "The significance probability of the
    Smirnov two-sample test"). Elsewhere D is as for one sample of n m / (n + m) rows, which calls a handful of new rows
    different far too often.

    Example:
        >>> round(kolmogorov_smirnov(1.0, 99, 1), 12)  # the one row is below or above all 99 others
        0.02
    """
    if distance <= 0:
        return 1.0
    n, m = max(n, m), min(n, m)
    if m > _SMALL or n * m > _STEPS:
        from scipy.stats import kstwo

        return float(kstwo.sf(distance, max(1, round(n * m / (n + m)))))
    # paths[i]: orders of i rows of the one and j of the other with |i' / n - j' / m| < distance all along, times n! j! / (n + j)!,
    # so that the last number is their fraction. A path comes from one row less of either, so it is a running sum.
    reached = np.rint(distance * n * m)  # the smallest |i m - j n| that counts
    i = np.arange(n + 1)
    paths = (i * m < reached).astype(float)
    for j in range(1, m + 1):
        near = np.abs(i * m - j * n) < reached
        paths = np.where(near, np.cumsum(np.where(near, paths, 0.0)) * (j / (n + j)), 0.0)
    return float(min(1.0, max(0.0, 1.0 - paths[n])))
