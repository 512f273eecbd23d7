"""Statistics of a row's nearest training rows in one space: distances, local outlier factor, local Gaussian."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.local import local_gaussian
from pushforward.detection.table.state import Arrays

__all__ = ["NEIGHBOR_STATISTICS", "Neighbors", "nearest", "neighbors_of"]

NEIGHBOR_STATISTICS = ("knn1", "knn5", "lof", "local20", "local50", "density20", "density50")
"""Names; all but "lof" and the densities are compared on a logarithmic scale."""

LOF = 20
_MOST = 50
_PART = 1 << 22  # distances in memory at a time
_INDEX = np.int64((1 << 24) - 1)  # bits for the index of a reference row
REACH_FLOOR = 1e-10
EQUAL = 1e-12  # relative; squared distances below this are rounding errors of equal rows


def nearest(
    rows: np.ndarray,
    reference: np.ndarray,
    k: int,
    drop: np.ndarray | None = None,
    *,
    prepared: tuple[np.ndarray, np.ndarray] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Euclidean distances of the k nearest reference rows, ascending, and their indices, each ``(n, k)``.

    Of rows at the same distance, to eight digits, the one with the lowest index is nearer.

    Args:
        rows: ``(n, d)``.
        reference: ``(m, d)`` with k <= m < 2^24.
        k: number of neighbors.
        drop: indices of reference rows that are no neighbors of each row, ``(n, j)``.
        prepared: what :func:`_prepare` returns for the reference rows, for several calls.
    """
    squares, transposed = _prepare(reference) if prepared is None else prepared
    own = (rows * rows).sum(1)
    squared = rows @ transposed
    squared += squares
    squared += own[:, None]
    np.maximum(squared, 0.0, out=squared)
    if drop is not None:
        np.put_along_axis(squared, drop, np.inf, axis=1)
    # Positive floats have the order of their bits. The index in place of the lowest bits breaks ties in the same way
    # however the products were rounded, and distances keep eight digits.
    keys = squared.view(np.int64)
    keys &= ~_INDEX
    keys |= np.arange(len(reference))
    if k < len(reference):
        keys = np.partition(keys, k - 1, axis=1)[:, :k]
    keys = np.sort(keys, axis=1)
    index = keys & _INDEX
    chosen = (keys & ~_INDEX).view(np.float64)
    chosen = np.where(chosen > EQUAL * (own[:, None] + squares[index]), chosen, 0.0)
    return np.sqrt(chosen), index


def _prepare(reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared lengths of reference rows, and -2 times their transpose."""
    return (reference * reference).sum(1), np.ascontiguousarray(-2.0 * reference.T)


class Neighbors(Arrays):
    """Distances to reference rows in one space.

    Statistics of a row x with neighbors x_(1), x_(2), ... :

    - ``knn1``, ``knn5``: distance to x_(k) (Ramaswamy et al. 2000).
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
        parts = [self._near(np.arange(len(reference))[part]) for part in _parts(len(reference), len(reference))]
        distances, index = (np.concatenate(each)[:, :LOF] for each in zip(*parts, strict=True))
        kth = distances[:, -1]
        return self.replace(kth=kth, reach=_reachability(distances, kth[index]))

    def prepare(self) -> None:
        """What every search needs of the reference rows."""
        self._prepared = _prepare(self.reference)

    def _near(self, own: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        rows = self.reference[own]
        return nearest(rows, self.reference, self._count(1), own[:, None], prepared=self._prepared)

    def _count(self, dropped: int) -> int:
        return max(1, min(_MOST, len(self.reference) - dropped))

    def score(self, rows: np.ndarray, wanted: set[str], drop: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """The wanted statistics of rows of the space, each ``(n,)``.

        Args:
            rows: ``(n, d)``.
            wanted: names among :data:`NEIGHBOR_STATISTICS`.
            drop: indices of reference rows that are no neighbors of each row, ``(n, j)``.
        """
        most = len(self.reference) - (1 if drop is None else drop.shape[1])
        k = max(1, min(max(neighbors_of(name) for name in wanted), most))
        found: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
        for part in _parts(len(rows), len(self.reference)):
            own = rows[part]
            if drop is None:
                distances, index = _without_itself(*nearest(own, self.reference, k + 1, prepared=self._prepared))
            else:
                distances, index = nearest(own, self.reference, k, drop[part], prepared=self._prepared)
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


def _without_itself(distances: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Drop the nearest row where its distance is 0, and the farthest elsewhere: ``(n, k + 1)`` to ``(n, k)``."""
    equal = (distances[:, :1] == 0.0).astype(np.int64)
    columns = np.arange(distances.shape[1] - 1) + equal
    return np.take_along_axis(distances, columns, axis=1), np.take_along_axis(index, columns, axis=1)


def neighbors_of(name: str) -> int:
    """Number of neighbors that a statistic reads; 0 for one that reads none."""
    if name not in NEIGHBOR_STATISTICS:
        return 0
    return LOF if name == "lof" else int(name.lstrip("abcdefghijklmnopqrstuvwxyz"))


def _reachability(distances: np.ndarray, kth: np.ndarray) -> np.ndarray:
    """Local reachability density, (mean over neighbors of max(distance, k-distance of the neighbor))^-1."""
    return 1.0 / (np.maximum(distances, kth).mean(1) + REACH_FLOOR)


def _parts(rows: int, reference: int) -> list[slice]:
    size = max(1, _PART // max(1, reference))
    return [slice(a, a + size) for a in range(0, rows, size)]
