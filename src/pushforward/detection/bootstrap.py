"""Stratified bootstrap: the uncertainty of a metric due to the choice of test rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.metrics import auroc, average_precision
from pushforward.detection.validation import score_array
from pushforward.numerics.checks import check_integer, check_number, check_seed

__all__ = ["bootstrap_interval"]

Metric = Callable[..., float]
_CHUNK = 2_000_000
"""Number of entries of the matrices of counts in memory at a time."""


def bootstrap_interval(
    metric: Metric,
    normal: ArrayLike,
    anomalous: ArrayLike,
    *,
    level: float = 0.95,
    n_resamples: int = 2000,
    seed: int = 0,
    **options: Any,
) -> tuple[float, float]:
    """Bootstrap percentile interval of a metric (Efron 1979); normal and anomalous rows are resampled separately.

    The interval covers the variation due to the test rows only, not the variation between training runs. If the scores
    separate the two groups perfectly, so does every resample, and the interval is a single point; it then does not account
    for errors that are too rare to occur in the test rows.

    Args:
        metric: function of (normal scores, anomalous scores), such as :func:`fpr_at_tpr`; :func:`auroc` and
            :func:`average_precision` are computed for many resamples at a time.
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        level: fraction of the resamples inside the interval.
        n_resamples: number of resamples.
        seed: seed of the resampling, any integer.
        options: keyword arguments of the metric.

    Returns:
        Lower and upper end.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for an invalid level, number of resamples or seed.

    Example:
        >>> from pushforward.detection import auroc, bootstrap_interval
        >>> low, high = bootstrap_interval(auroc, normal=range(100), anomalous=range(50, 150))
        >>> 0.8 < low < auroc(range(100), range(50, 150)) < high < 0.95
        True
    """
    normal, anomalous = score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")
    tail, n_resamples = 0.5 * (1 - check_number("level", level, 0, 1)), check_integer("n_resamples", n_resamples)
    rng = np.random.default_rng(check_seed(seed))
    from_counts = None if options else _FROM_COUNTS.get(metric)
    if from_counts is None:
        values = np.array(
            [
                metric(rng.choice(normal, normal.size), rng.choice(anomalous, anomalous.size), **options)
                for _ in range(n_resamples)
            ]
        )
    else:
        distinct, index = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)
        chunk = max(1, _CHUNK // max(distinct.size, normal.size, anomalous.size))  # the draws are in memory, too
        values = np.concatenate(
            [
                from_counts(
                    _resampled_counts(index[: normal.size], distinct.size, size, rng),
                    _resampled_counts(index[normal.size :], distinct.size, size, rng),
                )
                for size in (min(chunk, n_resamples - start) for start in range(0, n_resamples, chunk))
            ]
        )
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _resampled_counts(
    index: NDArray[np.intp], distinct: int, size: int, rng: np.random.Generator
) -> NDArray[np.float64]:
    """The number of times that each distinct score is drawn, ``(size, distinct)``."""
    drawn = index[rng.integers(index.size, size=(size, index.size))] + distinct * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * distinct).reshape(size, distinct).astype(np.float64)


def _auroc(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    below = np.cumsum(normal, axis=1) - 0.5 * normal
    return (anomalous * below).sum(1) / (normal.sum(1) * anomalous.sum(1))


def _average_precision(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    caught = np.cumsum(anomalous[:, ::-1], axis=1)[:, ::-1]
    alarms = caught + np.cumsum(normal[:, ::-1], axis=1)[:, ::-1]
    return (anomalous * caught / np.maximum(alarms, 1)).sum(1) / anomalous.sum(1)


_FROM_COUNTS: dict[Metric, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    auroc: _auroc,
    average_precision: _average_precision,
}
"""Metrics as functions of the counts of each distinct score among normal and anomalous rows, each ``(resamples, distinct)``."""
