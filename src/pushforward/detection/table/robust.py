"""Which training rows to leave out where some may be anomalies: those far from their K-th neighbor, with a large K."""

from __future__ import annotations

import math

import numpy as np

from pushforward.detection.conformal.trimming import far_scores
from pushforward.detection.table.coordinates import Coordinates
from pushforward.detection.table.spaces import Spaces
from pushforward.detection.table_features import TableFeatures
from pushforward.kernels.neighbors import References, nearest

__all__ = ["rows_to_keep"]

_REFERENCE = 5000
_PART = 512
_SUPPORT = 1.5  # neighbors, in multiples of the number of anomalies
_LEAST = 5
_SHARE = 0.25  # of the largest number of anomalies: so many rows are left out in any case
_FAR = 1.5  # factor of `far_scores`


def rows_to_keep(features: TableFeatures, matrix: np.ndarray, contamination: float, seed: int = 0) -> np.ndarray:
    """Leave out the rows with the largest distance to their K-th neighbor: those that are far, at most as many as may be anomalies.

    With m the largest number of anomalies, K = 1.5 m + 5: a clump of anomalies is then not its own neighborhood, as it is
    for the fifth neighbor. Far is what :func:`~pushforward.detection.conformal.trimming.far_scores` says, and at least a quarter
    of m is left out. The other anomalies are left to statistics of many neighbors (``robust`` of
    :func:`~pushforward.detection.table.fit_pool`), so little is lost where no row is an anomaly.

    Args:
        features: of the table.
        matrix: of :meth:`TableFeatures.impute <pushforward.detection.table_features.TableFeatures.impute>`, ``(n, w)``, finite.
        contamination: upper bound of the fraction of anomalies.
        seed: of the choice of 5000 rows among which neighbors are searched.

    Returns:
        Which rows to keep, boolean ``(n,)``; at least half of them.
    """
    n = len(matrix)
    coordinates = Coordinates.fit(features, matrix)
    rows = coordinates(matrix)
    placed = Spaces.fit(rows, coordinates.free)("standard", rows)
    chosen = np.random.default_rng(seed).permutation(n)[:_REFERENCE]
    reference = placed[chosen]
    k = min(math.ceil(_SUPPORT * contamination * len(reference)) + _LEAST, len(reference) - 2)
    if k < 1:
        return np.ones(n, dtype=bool)
    position = np.full(n, -1)
    position[chosen] = np.arange(len(chosen))
    distance = np.empty(n)
    for a in range(0, n, _PART):
        part = slice(a, a + _PART)
        found = nearest(placed[part], References(reference), k + 1)[0]
        inside = position[part] >= 0  # the nearest one of these is the row itself
        distance[part] = np.where(inside, found[:, k], found[:, k - 1])
    far = min(far_scores(distance, _FAR, contamination), math.ceil(contamination * n))
    removed = min(max(math.ceil(_SHARE * contamination * n), far), n // 2)
    keep = np.ones(n, dtype=bool)
    keep[np.argsort(distance, kind="stable")[n - removed :]] = False
    return keep
