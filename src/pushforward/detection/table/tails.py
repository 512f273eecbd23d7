"""Tails of single columns: how few training rows have a value as extreme as this one."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.state import Arrays

__all__ = ["TAIL_STATISTICS", "Tails"]

TAIL_STATISTICS = ("tail_max", "tail_3")

_MOST = 5000


class Tails(Arrays):
    """t_j = -log of the smaller tail probability of coordinate j, from the sorted training values.

    - ``tail_max``: the largest t_j.
    - ``tail_3``: the sum of the three largest.

    Args:
        values: sorted columns, ``(n, d)``; of more than 5000 rows, 5000 evenly spaced order statistics.
    """

    values: np.ndarray

    @classmethod
    def fit(cls, rows: np.ndarray) -> Self:
        """Fit to rows ``(n, d)``."""
        ordered = np.sort(rows, axis=0)
        if len(ordered) > _MOST:
            ordered = ordered[np.linspace(0, len(ordered) - 1, _MOST).round().astype(int)]
        return cls(values=ordered)

    def prepare(self) -> None:
        """The columns as contiguous vectors."""
        self._columns = np.ascontiguousarray(self.values.T)

    def by_column(self, rows: np.ndarray) -> np.ndarray:
        """t_j of each coordinate, ``(n, d)``."""
        n = len(self.values)
        terms = np.empty(rows.shape)
        for j, ordered in enumerate(self._columns):
            below = np.searchsorted(ordered, rows[:, j], "right")
            above = n - np.searchsorted(ordered, rows[:, j], "left")
            terms[:, j] = np.minimum(below, above)
        return -np.log((terms + 0.5) / (n + 1))

    def score(self, rows: np.ndarray, wanted: set[str]) -> dict[str, np.ndarray]:
        """The wanted statistics of rows ``(n, d)``, each ``(n,)``."""
        terms = self.by_column(rows)
        count = min(3, terms.shape[1])
        largest = np.sort(np.partition(terms, -count, axis=1)[:, -count:], axis=1)
        found = {"tail_max": largest[:, -1], "tail_3": largest.sum(1)}
        return {name: found[name] for name in wanted}

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.values.ndim == 2 and self.values.size > 0)
        self.require(bool(np.all(np.diff(self.values, axis=0) >= 0)))
