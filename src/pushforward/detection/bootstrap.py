"""How far a figure would move with other test rows: the stratified bootstrap."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.metrics import auroc, average_precision
from pushforward.detection.validation import score_array
from pushforward.numerics.checks import check_integer, check_number

__all__ = ["bootstrap_interval"]

Metric = Callable[..., float]
_CHUNK = 2_000_000
"""Cells of the counts that are held at once."""


def bootstrap_interval(
    metric: Metric,
    normal: ArrayLike,
    anomalous: ArrayLike,
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    **options: Any,
) -> tuple[float, float]:
    """Percentile interval of a figure over redrawn test rows (Efron 1979); normal and anomalous rows are redrawn apart.

    It speaks of the test rows alone: what another training run would give is on top of it. Where a sample separates
    perfectly, every redrawn one does too, and the interval is a point: it says nothing of rarer errors.

    Args:
        metric: a function of (normal scores, anomalous scores), as :func:`auroc`; :func:`auroc` and
            :func:`average_precision` are computed for many draws at once.
        normal: scores of normal rows, shape (n,).
        anomalous: scores of anomalous rows, shape (m,).
        level: share of the draws inside.
        draws: how many.
        seed: of the draws.
        options: passed on to the metric.

    Returns:
        Lower and upper end.

    Raises:
        InputError: for NaN, an empty group, or a wrong shape or type.
        ConfigError: for a level or a number of draws that makes no sense.

    Example:
        >>> from pushforward.detection import auroc, bootstrap_interval
        >>> low, high = bootstrap_interval(auroc, normal=range(100), anomalous=range(50, 150))
        >>> 0.8 < low < auroc(range(100), range(50, 150)) < high < 0.95
        True
    """
    normal, anomalous = score_array(normal, "the normal scores"), score_array(anomalous, "the anomalous scores")
    tail, draws = 0.5 * (1 - check_number("level", level, 0, 1)), check_integer("draws", draws)
    rng = np.random.default_rng(seed)
    counted = None if options else _COUNTED.get(metric)
    if counted is None:
        values = np.array(
            [
                metric(rng.choice(normal, normal.size), rng.choice(anomalous, anomalous.size), **options)
                for _ in range(draws)
            ]
        )
    else:
        places, where = np.unique(np.concatenate([normal, anomalous]), return_inverse=True)
        chunk = max(1, _CHUNK // places.size)
        values = np.concatenate(
            [
                counted(
                    _redrawn(where[: normal.size], places.size, size, rng),
                    _redrawn(where[normal.size :], places.size, size, rng),
                )
                for size in (min(chunk, draws - start) for start in range(0, draws, chunk))
            ]
        )
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _redrawn(where: NDArray[np.intp], places: int, size: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """How often each distinct score is drawn, ``(size, places)``."""
    drawn = where[rng.integers(where.size, size=(size, where.size))] + places * np.arange(size)[:, None]
    return np.bincount(drawn.ravel(), minlength=size * places).reshape(size, places).astype(np.float64)


def _auroc(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    below = np.cumsum(normal, axis=1) - 0.5 * normal
    return (anomalous * below).sum(1) / (normal.sum(1) * anomalous.sum(1))


def _average_precision(normal: NDArray[np.float64], anomalous: NDArray[np.float64]) -> NDArray[np.float64]:
    caught = np.cumsum(anomalous[:, ::-1], axis=1)[:, ::-1]
    alarms = caught + np.cumsum(normal[:, ::-1], axis=1)[:, ::-1]
    return (anomalous * caught / np.maximum(alarms, 1)).sum(1) / anomalous.sum(1)


_COUNTED: dict[Metric, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    auroc: _auroc,
    average_precision: _average_precision,
}
"""Metrics of how often each distinct score occurs among normal and anomalous rows, ``(draws, places)`` each, for all draws."""
