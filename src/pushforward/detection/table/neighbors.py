"""Statistics of a row's nearest training rows in one space: distances, local outlier factor, local Gaussian."""

from __future__ import annotations

from typing import Self

import numpy as np
import torch

from pushforward.detection.table.local import local_gaussian
from pushforward.detection.table.state import Arrays
from pushforward.kernels.native import library
from pushforward.kernels.neighbors import References, nearest

__all__ = ["NEIGHBOR_STATISTICS", "ROBUST_STATISTICS", "Neighbors", "neighbors_of"]

NEIGHBOR_STATISTICS = ("knn1", "knn5", "lof", "local20", "local50", "density20", "density50")
"""Names; all but "lof" and the densities are compared on a logarithmic scale."""

ROBUST_STATISTICS = ("knn20", "knn50", "lof", "local50", "density50")
"""Those that a few anomalies among the training rows change least: an anomaly like them has fewer such neighbors."""

LOF = 20
_MOST = 50
REACH_FLOOR = 1e-10
_ROWS = 512  # in memory at a time, with their distances


class Neighbors(Arrays):
    """Distances to reference rows in one space.

    Statistics of a row x with neighbors x_(1), x_(2), ... :

    - ``knn1``, ``knn5``, ``knn20``, ``knn50``: distance to x_(k) (Ramaswamy et al. 2000).
    - ``lof``: local outlier factor with 20 neighbors (Breunig et al. 2000, definition 7).
    - ``localK``, ``densityK``: distance and -log density under a Gaussian of the K nearest rows
      (:func:`~pushforward.detection.table.local.local_gaussian`).

    A row that is equal to a reference row leaves one such row out, as training rows do for the tail scales. So a training
    row that is scored again is compared with the other rows.

    Fewer reference rows than k give k the largest value that exists.

    Args:
        reference: rows of the space, ``(m, d)``.
        kth: distance of each reference row to its 20th neighbor, ``(m,)``.
        reach: local reachability density of each reference row, ``(m,)``.
    """

    reference: np.ndarray
    kth: np.ndarray
    reach: np.ndarray

    @classmethod
    def fit(cls, reference: np.ndarray, *, lof: bool = True) -> Self:
        """Fit to reference rows ``(m, d)``, m >= 2.

        Args:
            reference: rows of the space.
            lof: whether to prepare the local outlier factor, which needs the neighbors of every reference row.
        """
        blank = np.zeros(len(reference))
        self = cls(reference=reference, kth=blank, reach=blank)
        if not lof:
            return self
        parts = [self._near(np.arange(len(reference))[part]) for part in _parts(len(reference))]
        distances, index = (np.concatenate(each)[:, :LOF] for each in zip(*parts, strict=True))
        kth = distances[:, -1]
        return self.replace(kth=kth, reach=_reachability(distances, kth[index]))

    def prepare(self) -> None:
        """What every search needs of the reference rows."""
        self._references = References(self.reference)

    def _near(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.reference[own]
        return nearest(rows, self._references, self._count(1), own[:, None])

    def _count(self, dropped: int) -> int:
        return max(1, min(_MOST, len(self.reference) - dropped))

    def score(self, rows: np.ndarray, wanted: set[str], drop: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The wanted statistics of rows of the space, each ``(n,)``.

        Args:
            rows: ``(n, d)``.
            wanted: names among :data:`NEIGHBOR_STATISTICS` and :data:`ROBUST_STATISTICS`.
            drop: indices of reference rows that are no neighbors of each row, ``(n, j)``.
        """
        most = len(self.reference) - (1 if drop is None else drop.shape[1])
        k = max(1, min(max(neighbors_of(name) for name in wanted), most))
        found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        for part in _parts(len(rows)):
            own = rows[part]
            if drop is None:
                distances, index = _without_itself(*nearest(own, self._references, k + 1))
            else:
                distances, index = nearest(own, self._references, k, drop[part])
            for name in wanted:
                if name.startswith("knn"):
                    value = distances[:, min(int(name[3:]), k) - 1]
                elif name == "lof":
                    d, i = distances[:, :LOF], index[:, :LOF]
                    value = self.reach[i].mean(1) / _reachability(d, self.kth[i])
                elif name.startswith("local"):
                    continue
                else:
                    count = int(name[7:])
                    distance, value = local_gaussian(own, self.reference, index[:, :count])
                    if f"local{count}" in wanted:
                        found[f"local{count}"].append(distance)
                found[name].append(value)
            for count in (20, 50):
                if f"local{count}" in wanted and f"density{count}" not in wanted:
                    found[f"local{count}"].append(local_gaussian(own, self.reference, index[:, :count])[0])
        return {name: np.concatenate(values) if values else np.zeros(0) for name, values in found.items()}

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.reference.ndim == 2 and len(self.reference) > 1)
        self.require(self.kth.shape == self.reach.shape == (len(self.reference),))
        self.require(bool(np.all(self.kth >= 0) and np.all(self.reach >= 0)))


def _without_itself(distances: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the nearest row where its distance is 0, and the farthest elsewhere: ``(n, k + 1)`` to ``(n, k)``."""
    equal = (distances[:, :1] == 0.0).astype(np.int64)
    columns = np.arange(distances.shape[1] - 1) + equal
    return np.take_along_axis(distances, columns, axis=1), np.take_along_axis(index, columns, axis=1)


def neighbors_of(name: str) -> int:
    """Number of neighbors that a statistic reads; 0 for one that reads none."""
    if name not in (*NEIGHBOR_STATISTICS, *ROBUST_STATISTICS):
        return 0
    return LOF if name == "lof" else int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _reachability(distances: np.ndarray, kth: np.ndarray) -> np.ndarray:
    """Local reachability density, (mean over neighbors of max(distance, k-distance of the neighbor))^-1."""
    return 1.0 / (np.maximum(distances, kth).mean(1) + REACH_FLOOR)


def _parts(rows: int) -> list[slice]:
    """Rows of a size at a time, so that equal rows get equal products; native kernels compute each row for itself."""
    return (
        [slice(a, a + _ROWS) for a in range(0, rows, _ROWS)]
        if library("neighbors", torch.float64) is None
        else [slice(0, rows)]
    )
