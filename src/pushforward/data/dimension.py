"""Estimators of the intrinsic dimension of data."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pushforward.data.tables import from_tensor
from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_choice, check_integer, check_seed, is_integer

__all__ = ["intrinsic_dimension"]

METHODS = {"mle": 20, "twonn": 2, "pca": 30}
"""The methods, each with its default number of neighbors."""


_ROUNDING = 1e-9  # smaller relative differences of distances are rounding


def intrinsic_dimension(
    x: Any, method: str = "mle", *, neighbors: int | None = None, most: int = 5000, seed: int = 0
) -> float:
    """Estimate the dimension of the manifold that contains the rows, from the distances to their nearest neighbors.

    - "mle": in a small ball, log(T_k / T_j) of the k-th to the j-th distance of a row is exponential with rate m (Levina and
      Bickel 2004). The mean over all rows, 1/m = mean log(T_k / T_j), has less bias than the mean of each row's m (MacKay and
      Ghahramani 2005).
    - "twonn": two neighbors only. P(r_2 / r_1 <= u) = 1 - u^-m, fitted to 90% of the rows by a line through the origin (Facco
      et al. 2017, arXiv 1803.06992). It uses the smallest balls, so curvature affects it least and noise most.
    - "pca": the mean number of principal components that explain 95% of the variance of a row's neighbors (Fukunaga and
      Olsen 1971). Curvature makes it larger.

    The first two underestimate large m, by a tenth at m = 5 with 2,000 rows, because a ball then has too few rows. Noise adds
    dimensions at scales below its size. The result depends on the scales of the columns: standardize them first. Use it to
    choose the width of a code, as in ``TwoStep(AutoEncoder(D, latent=d))``: take the nearest integer, or a larger one if d is
    large. A code with too few dimensions loses data, and one with too many allows manifold overfitting.

    Args:
        x: ``(n, ...)`` real numbers. Rows that occur twice count once.
        method: "mle", "twonn" or "pca".
        neighbors: number k of neighbors; by default 20 for "mle" and 30 for "pca".
        most: largest number of rows to use. More rows are sampled at random.
        seed: seed of that sample.

    Returns:
        The estimate, not rounded.

    Raises:
        ConfigError: for an unknown method, a number of neighbors that the method does not allow, or ``most`` below 2.
        InputError: for values that are not finite, fewer distinct rows than neighbors + 1, or rows on a lattice, most of
            whose neighbors are equally far ("mle" and "twonn").

    Example:
        >>> import numpy as np
        >>> t = np.random.default_rng(0).uniform(0, 6, size=1000)
        >>> round(intrinsic_dimension(np.stack((t, np.sin(t), np.cos(t)), 1)), 1)       # a curve in space
        1.0
    """
    check_choice("method", method, METHODS)
    check_integer("most", most, 2)
    if neighbors is not None and (method == "twonn" or not is_integer(neighbors) or neighbors < 2):
        raise ConfigError(f"neighbors must be an integer of at least 2, and 'twonn' always takes 2; got {neighbors!r}.")
    count = METHODS[method] if neighbors is None else int(neighbors)
    try:
        rows = np.asarray(from_tensor(x) if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"intrinsic_dimension needs numbers: {error}") from error
    if rows.ndim < 2 or not np.isfinite(rows).all():
        raise InputError(
            f"intrinsic_dimension needs finite numbers with one row for each point; got an array of shape {rows.shape}."
        )
    rows = np.unique(rows.reshape(len(rows), -1), axis=0)
    rows = _unit_scale(rows)
    if len(rows) > most:
        rows = rows[np.random.default_rng(check_seed(seed)).choice(len(rows), most, replace=False)]
    if len(rows) <= count:
        raise InputError(f"{count} neighbors need more than {count} distinct rows; got {len(rows)}.")
    from sklearn.neighbors import NearestNeighbors

    distances, index = NearestNeighbors(n_neighbors=count + 1).fit(rows).kneighbors(rows)
    if method == "pca":
        return float(np.mean([_components(rows[near]) for near in index]))
    first, last = distances[:, 1], distances[:, -1]
    if not first.all() or np.mean(last > (1 + _ROUNDING) * first) < 0.5:
        raise InputError(
            f"the distances of most rows to their {count} nearest neighbors are equal or 0, as on a lattice of rounded numbers: "
            "add noise of the size of the rounding, or use method='pca'."
        )
    return _mle(distances[:, 1:]) if method == "mle" else _two_neighbors(distances[:, 1:])


def _unit_scale(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows, centered and divided by one number, which changes no ratio of distances and prevents overflow."""
    if not rows.size:
        return rows
    largest = np.abs(rows).max() or 1.0
    rows = rows / largest
    rows = rows - rows.mean(0)
    return rows / (np.abs(rows).max() or 1.0)


def _mle(distances: NDArray[np.float64]) -> float:
    """1 / mean log(T_k / T_j), j < k."""
    return float(1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1])))


def _two_neighbors(distances: NDArray[np.float64]) -> float:
    """Slope through the origin of -log(1 - F) against log(r_2 / r_1)."""
    ratio = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    keep = int(0.9 * len(ratio))
    tail = -np.log1p(-np.arange(1, keep + 1) / len(ratio))
    return float((ratio[:keep] @ tail) / (ratio[:keep] @ ratio[:keep]))


def _components(near: NDArray[np.float64]) -> int:
    """The number of principal components that explain 95% of the variance."""
    variance = np.linalg.svd(near - near.mean(0), compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(variance), 0.95 * variance.sum())) + 1
