"""`TailScale`: statistics on one scale, -log of the tail probability among training rows."""

from __future__ import annotations

from typing import Self

import numpy as np

from pushforward.detection.table.state import Arrays

__all__ = ["TailScale"]

_BEYOND = 0.9
_LEAST = 1e-3  # of the median: distances below this are equal on the logarithmic scale
_ROUNDING = 1e-6  # in units of a coordinate's spread: smaller distances are rounding, as of rows that lie in a plane


class TailScale(Arrays):
    """-log tail probability of one statistic, from its values on training rows that did not take part in it.

    Up to the 90th percentile u it is -log of the fraction of values that are at least as large. Beyond it is -log of the
    fraction above u (0.1 without ties), plus (s - u) / b: the tail of an exponential distribution with the mean excess b,
    so it grows without bound.

    Args:
        values: ascending, ``(n,)``, on the logarithmic scale if there is a floor.
        floor: ``(1,)``, smallest value of a statistic that is compared on a logarithmic scale; ``(0,)`` for none.
    """

    values: np.ndarray
    floor: np.ndarray

    @classmethod
    def fit(cls, values: np.ndarray, *, logarithmic: bool) -> Self:
        """Fit to the values of training rows, ``(n,)``."""
        floor = np.zeros(0)
        if logarithmic:
            positive = values[values > 0]
            floor = np.array([max(_LEAST * float(np.median(positive)) if positive.size else 0.0, _ROUNDING)])
            values = np.log(np.maximum(values, floor[0]))
        return cls(values=np.sort(values), floor=floor)

    def prepare(self) -> None:
        """Where the exponential tail begins, and its mean excess."""
        n = len(self.values)
        self.start = float(np.quantile(self.values, _BEYOND)) if n else 0.0
        excess = self.values[self.values > self.start] - self.start
        smallest = 1e-6 * (1.0 + float(np.abs(self.values).max(initial=0.0)))
        self.mean = max(float(excess.mean()) if excess.size else 0.0, smallest)
        self.level = -np.log((excess.size + 0.5) / (n + 1))

    def __call__(self, statistic: np.ndarray) -> np.ndarray:
        """-log tail probability of values of the statistic, nats, ``(n,)``."""
        if self.floor.size:
            statistic = np.log(np.maximum(statistic, self.floor[0]))
        n = len(self.values)
        inside = -np.log((n - np.searchsorted(self.values, statistic, "left") + 0.5) / (n + 1))
        beyond = self.level + (statistic - self.start) / self.mean
        return np.where(statistic > self.start, beyond, np.minimum(inside, self.level))

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        self.require(self.values.ndim == 1 and self.values.size > 0 and bool(np.all(np.diff(self.values) >= 0)))
        self.require(self.floor.shape in ((0,), (1,)) and bool(np.all(self.floor > 0)))
