"""Calibration scores among which a few may be of anomalies: which to leave out, and what is promised then."""

from __future__ import annotations

import math

import numpy as np

__all__ = ["far_scores", "trimmed_bound"]

_LOW, _HIGH = 0.7, 0.9


def far_scores(scores: np.ndarray, factor: float = 1.0, contamination: float = 0.0, least: float = 0.0) -> int:
    """Number of scores that are far beyond the tail that the others suggest.

    The tail is exponential, with the mean excess b = (q(0.9) - q(0.7)) / log 3 of the quantiles q. A score is far if it is
    above q(0.9) + factor b log(0.2 n), where a factor of 1 gives the level that half a score of n would exceed. With an upper
    bound of the fraction of anomalies, the quantiles are those of the scores without the largest of this fraction. At most
    a tenth of the scores, or this fraction, can be far.

    Args:
        scores: ``(n,)``.
        factor: larger counts fewer.
        contamination: upper bound of the fraction of anomalies.
        least: smallest mean excess b, where a usual one is known.

    Example:
        >>> usual = -np.log(np.linspace(1, 0.01, 200))
        >>> far_scores(usual), far_scores(np.r_[usual, 40.0, 50.0])
        (0, 2)
    """
    finite = scores[np.isfinite(scores)]
    n = len(scores)
    if len(finite) < 20:
        return 0
    low, high = np.quantile(finite, ((1 - contamination) * _LOW, (1 - contamination) * _HIGH))
    spread = max(float(high - low) / math.log((1 - _LOW) / (1 - _HIGH)), least, 1e-12 * (1.0 + abs(float(high))))
    limit = float(high) + factor * spread * math.log(max(2.0 * (1 - _HIGH) * n, 1.0))
    return min(int((scores > limit).sum()), max(n // 10, int(contamination * n)))


def trimmed_bound(alpha: float, n: int, trimmed: int) -> float:
    """The false-alarm rate that holds whatever the trimmed scores were, alpha + t / (n - t + 1).

    Let t of n scores be left out and p' = (1 + #{kept s_i >= s}) / (n - t + 1). If all n are of normal rows, then
    p = (1 + #{s_i >= s}) / (n + 1) is valid and (n + 1) p <= (n - t + 1) p' + t, so P(p' <= a) <= a + t (1 - a) / (n + 1),
    which is below the bound. If the trimmed scores are of anomalies, p' is valid itself; anomalies that were kept raise p'.
    With m other anomalies the rate is at most (n - t + 1) / (n - t - m + 1) times as large.

    Args:
        alpha: level of p'.
        n: number of scores.
        trimmed: t.
    """
    return alpha + trimmed / (n - trimmed + 1)
