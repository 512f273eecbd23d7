"""Calibration scores among which a few may be of anomalies: which to leave out, and what is promised then."""

from __future__ import annotations

import math

import numpy as np

from pushforward.detection.conformal.guarantees import Guarantee, alarm_count, rows_needed

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


def trimmed_bound(
    alpha: float, n: int, trimmed: int, guarantee: Guarantee = "marginal", delta: float = 0.05
) -> float:  # fmt: skip
    """The false-alarm rate that holds whatever the trimmed scores were, if at most t of n scores are left out.

    If t are left out and p' = (1 + #{kept s_i >= s}) / (n - t + 1), an alarm at p' <= k / (n - t + 1) is one above the (k + t)-th
    largest of all n scores. If all n are of normal rows, its rate is at most (k + t) / (n + 1) on average, and so at most
    alpha + t / (n - t + 1). Given the scores its law is Beta(k + t, n + 1 - k - t), whose 1 - delta quantile is the bound of the
    "pac" guarantee. k + t does not fall with t, so both hold for the largest t however the scores themselves choose the smaller one.
    If the trimmed scores are of anomalies, p' is valid itself; anomalies that were kept raise p'. With m other anomalies the rate is
    at most (n - t + 1) / (n - t - m + 1) times as large.

    Args:
        alpha: level of p'.
        n: number of scores.
        trimmed: t, the largest number that may be left out.
        guarantee: see :class:`~pushforward.detection.ConformalCalibrator`.
        delta: see :class:`~pushforward.detection.ConformalCalibrator`.
    """
    if guarantee == "marginal":
        return alpha + trimmed / (n - trimmed + 1)
    from scipy.special import betainccinv

    left = n - trimmed
    k = trimmed + (alarm_count(left, alpha, guarantee, delta) if left >= rows_needed(alpha, guarantee, delta) else 1)
    return max(alpha, float(betainccinv(k, n + 1 - k, delta)))
