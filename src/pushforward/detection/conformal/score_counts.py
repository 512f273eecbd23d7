"""`ScoreCounts`: the ranks of a stream of scores among calibration scores, and what follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pushforward.detection.conformal.calibration import ConformalCalibrator
from pushforward.detection.conformal.guarantees import FalseAlarmDistribution
from pushforward.detection.kolmogorov import kolmogorov_smirnov
from pushforward.detection.validation import score_array
from pushforward.numerics.checks import check_integer

__all__ = ["LARGEST", "PValueHistogram", "ScoreCounts", "Uniformity"]

LARGEST = 200_000
"""Rows beyond which the interval of this many rows is used; for 10,000 calibration rows it is at most 3 % wider."""


@dataclass(frozen=True)
class Uniformity:
    """Whether new scores are distributed as the calibration scores, so that p-values are uniform.

    Attributes:
        distance: sup abs(F - G) of the two samples (Kolmogorov and Smirnov).
        p_value: of this distance; with ties it is too large.
        excess: the signed difference where it is largest: positive if more new rows than calibration rows have high scores.
    """

    distance: float
    p_value: float
    excess: float


@dataclass(frozen=True)
class PValueHistogram:
    """Counts of p-values in bins, with the interval that theory gives for rows like the calibration rows.

    Attributes:
        edges: of the bins, which contain their upper edge, ``(bins + 1,)``.
        counts: p-values in each bin, ``(bins,)``.
        expected: mean of each count, m k / (n + 1) for a bin with k of the n + 1 possible p-values.
        low: lower end of the interval of each count by itself, ``(bins,)``.
        high: upper end, ``(bins,)``.
    """

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    expected: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class ScoreCounts:
    """The rank of each of many scores among n calibration scores; the memory is 2 n + 1 numbers, however many there are.

    Args:
        calibrator: the calibration scores.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> counts = ScoreCounts(ConformalCalibrator(rng.normal(size=500)))
        >>> counts.add(rng.normal(size=1000))
        >>> counts.rows, bool(counts.uniformity().p_value > 0.01)
        (1000, True)
    """

    def __init__(self, calibrator: ConformalCalibrator) -> None:
        self.calibrator = calibrator
        self._values, sizes = np.unique(calibrator.scores, return_counts=True)
        self._at_most = np.cumsum(sizes)
        # 2 i is below value i and above value i - 1, and 2 i + 1 is equal to it.
        self._counts = np.zeros(2 * len(self._values) + 1, dtype=np.int64)

    @property
    def rows(self) -> int:
        """Number of scores."""
        return int(self._counts.sum())

    def add(self, scores: ArrayLike) -> None:
        """Count scores, ``(m,)``.

        Raises:
            InputError: for NaN or a wrong shape.
        """
        found = score_array(scores, "the scores", may_be_empty=True)
        place = np.searchsorted(self._values, found, side="left") + np.searchsorted(self._values, found, side="right")
        self._counts += np.bincount(place, minlength=len(self._counts))

    def with_p_at_most(self, level: ArrayLike) -> NDArray[np.int64]:
        """Number of scores with a p-value of at most each level."""
        ranks, counts = self._ranks()
        limit = np.floor(np.asarray(level, dtype=np.float64) * (self.calibrator.n + 1) * (1 + 1e-12))
        return np.concatenate(([0], np.cumsum(counts)))[np.searchsorted(ranks, limit, side="right")]

    def uniformity(self, left_out: int = 0) -> Uniformity:
        """The two-sample test of Kolmogorov and Smirnov of the new scores and the calibration scores.

        Args:
            left_out: number of further calibration scores, of which it is known that they are larger than all others; the
                distributions are then compared up to these.
        """
        n, m = self.calibrator.n + left_out, self.rows
        if m == 0:
            return Uniformity(0.0, 1.0, 0.0)
        total = np.cumsum(self._counts) / m
        at_most = np.concatenate(([0], self._at_most)) / n
        # Just below each calibration value, at it, and at the end; new scores between two of them are no larger difference.
        gaps = np.concatenate((at_most[:-1] - total[:-1:2], at_most[1:] - total[1::2]))
        k = int(np.abs(gaps).argmax())
        distance = float(abs(gaps[k]))
        return Uniformity(distance, kolmogorov_smirnov(distance, n, m), float(gaps[k]))

    def histogram(self, bins: int = 20, level: float = 0.99, left_out: int = 0) -> PValueHistogram:
        """Counts of the p-values in equal bins.

        Args:
            bins: at most so many; n + 1 if there are fewer possible p-values.
            level: probability of the interval of each bin.
            left_out: see :func:`~pushforward.detection.false_alarm_distribution`; such scores belong to the first bin.
        """
        n = self.calibrator.n
        bins = min(check_integer("bins", bins), n + 1)
        edges = np.floor(np.arange(bins + 1) * (n + 1) / bins) / (n + 1)
        counts = np.diff(self.with_p_at_most(edges))
        possible = np.diff(np.rint(edges * (n + 1))).astype(int)
        bands = np.array([self.interval(int(k), level, 0 if i else left_out) for i, k in enumerate(possible)]).reshape(
            -1, 2
        )
        if left_out and len(bands) > 1:  # if they are normal, all other bins have fewer rows
            bands[1:, 0] = [self._interval(int(k), n + 1 + left_out - int(k), level)[0] for k in possible[1:]]
        expected = self.rows * possible / (n + 1)
        return PValueHistogram(edges, counts, expected, bands[:, 0] * self.rows, bands[:, 1] * self.rows)

    def interval(self, k: int, level: float = 0.99, left_out: int = 0) -> tuple[float, float]:
        """Interval of the fraction of so many new rows with one of k of the n + 1 possible p-values, by theory.

        With ``left_out`` they are the smallest ones; see :func:`~pushforward.detection.false_alarm_distribution`.
        """
        n = self.calibrator.n
        if self.rows == 0 or not 0 < k <= n:
            return (0.0, 1.0) if self.rows == 0 else (float(k > n), float(k > n))
        return self._interval(k, n + 1 - k, level, left_out)

    def _interval(self, a: int, b: int, level: float, left_out: int = 0) -> tuple[float, float]:
        if self.rows == 0:
            return 0.0, 1.0
        return FalseAlarmDistribution(a, b, left_out).realized_interval(min(self.rows, LARGEST), level)

    def _ranks(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Possible values of p (n + 1), ascending, and the number of scores with each."""
        below = np.concatenate(([0], self._at_most))  # calibration scores below a gap, or below the value after it
        smaller = np.repeat(below, 2)[: len(self._counts)]
        # A gap and the value above it have the same number of smaller calibration scores, so the same p-value.
        ranks = 1 + self.calibrator.n - smaller
        return ranks[::-1], self._counts[::-1]
