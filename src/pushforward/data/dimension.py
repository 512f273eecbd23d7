"""How many dimensions data really have: estimators of the intrinsic dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pushforward.errors import ConfigError, InputError
from pushforward.numerics.checks import check_choice

__all__ = ["intrinsic_dimension"]

METHODS = {"mle": 20, "twonn": 2, "pca": 30}
"""Each method with its number of neighbors."""


def intrinsic_dimension(
    x: Any, method: str = "mle", *, neighbors: int | None = None, most: int = 5000, seed: int = 0
) -> float:
    """Dimension of the manifold that rows lie on, from the distances to their nearest neighbors.

    - "mle": within a small ball, the logarithms of the ratios T_k / T_j of a row's k-th to its j-th distance are exponential
      with rate m (Levina and Bickel 2004); pooled over rows, 1/m = mean log(T_k / T_j), which corrects the bias of
      averaging each row's m (MacKay and Ghahramani 2005).
    - "twonn": from two neighbors alone: P(r_2 / r_1 <= u) = 1 - u^-m, fitted by a line through the origin to 90% of the rows
      (Facco et al. 2017, arXiv 1803.06992). The least local, so the least curved; sensitive to noise.
    - "pca": the number of principal components that hold 95% of the variance of a row's neighbors, the mean over rows
      (Fukunaga and Olsen 1971). Rounds up what is curved.

    All but the last shrink as m grows, since a ball then needs more rows than there are (by a tenth at m = 5 and 2,000 rows), and
    all see noise as dimensions at scales below it. Units matter: bring columns to one scale first. It is meant for the width
    of a code, as in ``TwoStep(AutoEncoder(D, latent=d))``: the nearest integer, and rather more than fewer where d is large.
    Too few dimensions lose data, too many bring manifold overfitting back.

    Args:
        x: ``(n, ...)``, real numbers; rows that occur twice count once.
        method: "mle", "twonn" or "pca".
        neighbors: k; 20 for "mle" and 30 for "pca".
        most: rows used at most, a random choice of them.
        seed: of that choice.

    Returns:
        The estimate, not rounded.

    Raises:
        ConfigError: for an unknown method, or an impossible number of neighbors.
        InputError: for values that are not finite, or fewer distinct rows than neighbors + 1.

    Example:
        >>> import numpy as np
        >>> t = np.random.default_rng(0).uniform(0, 6, size=1000)
        >>> round(intrinsic_dimension(np.stack((t, np.sin(t), np.cos(t)), 1)), 1)       # a curve in space
        1.0
    """
    check_choice("method", method, METHODS)
    if neighbors is not None and (method == "twonn" or not isinstance(neighbors, int) or neighbors < 2):
        raise ConfigError(f"neighbors must be an integer of at least 2, and 'twonn' always takes 2; got {neighbors!r}.")
    count = METHODS[method] if neighbors is None else neighbors
    try:
        rows = np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"intrinsic_dimension reads numbers: {error}") from error
    if rows.ndim < 2 or not np.isfinite(rows).all():
        raise InputError(f"intrinsic_dimension reads finite numbers, one row a point; got shape {rows.shape}.")
    rows = np.unique(rows.reshape(len(rows), -1), axis=0)
    if len(rows) > most:
        rows = rows[np.random.default_rng(seed).choice(len(rows), most, replace=False)]
    if len(rows) <= count:
        raise InputError(f"{count} neighbors need more than {count} distinct rows; got {len(rows)}.")
    from sklearn.neighbors import NearestNeighbors

    distances, index = NearestNeighbors(n_neighbors=count + 1).fit(rows).kneighbors(rows)
    if method == "pca":
        return float(np.mean([_components(rows[near]) for near in index]))
    return _ratios(distances[:, 1:]) if method == "mle" else _two(distances[:, 1:])


def _ratios(distances: NDArray[np.float64]) -> float:
    """One over the mean of log(T_k / T_j), j < k."""
    return float(1 / np.mean(np.log(distances[:, -1:] / distances[:, :-1])))


def _two(distances: NDArray[np.float64]) -> float:
    """Slope through the origin of -log(1 - F) against log(r_2 / r_1)."""
    ratio = np.sort(np.log(distances[:, 1] / distances[:, 0]))
    keep = int(0.9 * len(ratio))
    tail = -np.log1p(-np.arange(1, keep + 1) / len(ratio))
    return float((ratio[:keep] @ tail) / (ratio[:keep] @ ratio[:keep]))


def _components(near: NDArray[np.float64]) -> int:
    """Principal components that hold 95% of the variance."""
    variance = np.linalg.svd(near - near.mean(0), compute_uv=False) ** 2
    return int(np.searchsorted(np.cumsum(variance), 0.95 * variance.sum())) + 1
