"""Whether the columns of new rows are distributed as those of the training rows, in one pass and constant memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pushforward.data.cells import INSTANTS
from pushforward.detection.column_summary import ColumnSummary
from pushforward.detection.homogeneity import homogeneity
from pushforward.detection.kolmogorov import kolmogorov_smirnov

__all__ = ["DISTANCE", "SIGNIFICANCE", "ColumnDrift", "ColumnTally"]

SIGNIFICANCE = 0.01
"""Probability that any of the columns of rows like the training rows is called different, for each kind of difference."""

DISTANCE = 0.1
"""Smallest distance of two distributions that is called drift; a smaller one can be certain and still not matter."""

_MOST_NEW = 100_000
"""Unseen categories that are counted by name. The rows of others are as many further classes, at most, of one row or of a few."""


@dataclass(frozen=True)
class ColumnDrift:
    """How one column of new rows differs from the training column.

    Attributes:
        summary: the training column.
        counts: new rows in the intervals of the summary, or of its codes, ``(k,)``.
        below: new rows below the smallest training number.
        above: new rows above the largest training number.
        unseen: new rows with a flag or a category that no training row had.
        missing: new rows without a value.
        low: smallest new number; NaN without one.
        high: largest new number.
        distance: of numbers, Kolmogorov and Smirnov's distance sup abs(F - G); of categories, the total variation.
        p_value: that the two columns are two samples of one distribution.
        p_missing: that the fractions of missing cells are equal.
        p_outside: that as many new rows are outside the range of as many training rows.
        tests: number of columns that are tested together (Bonferroni).
    """

    summary: ColumnSummary
    counts: np.ndarray
    below: int
    above: int
    unseen: int
    missing: int
    low: float
    high: float
    distance: float
    p_value: float
    p_missing: float
    p_outside: float
    tests: int

    @property
    def rows(self) -> int:
        """New rows."""
        return int(self.counts.sum()) + self.below + self.above + self.unseen + self.missing

    @property
    def outside(self) -> int:
        """New rows below the smallest or above the largest training number."""
        return self.below + self.above

    @property
    def tested(self) -> bool:
        """Whether another distribution would be news. Instants have always another one: new rows are later."""
        return self.summary.column.time not in INSTANTS

    @property
    def drifted(self) -> bool:
        """Whether the values have another distribution: certain, and by a distance of at least 0.1."""
        return self.tested and self.distance >= DISTANCE and self.p_value <= SIGNIFICANCE / self.tests

    @property
    def too_far(self) -> bool:
        """Whether more new rows are outside the training range than chance explains."""
        return self.tested and self.p_outside <= SIGNIFICANCE / self.tests

    @property
    def missing_changed(self) -> bool:
        """Whether cells are missing where none was, or the fraction changed by at least 0.1 and certainly."""
        if self.summary.missing == 0 and self.missing:
            return True
        difference = abs(self.missing / max(1, self.rows) - self.summary.missing / self.summary.rows)
        return difference >= DISTANCE and self.p_missing <= SIGNIFICANCE / self.tests


@dataclass
class ColumnTally:
    """Counts of new values of one column, against the intervals of the training column.

    Under the hypothesis that training rows and new rows are exchangeable:

    - the distribution of two samples' distance is that of Kolmogorov and Smirnov; here it is taken at the training quantiles, so
      it can only be smaller;
    - the counts of categories are compared by the chi-squared statistic, which is simulated where counts are small
      (:func:`~pushforward.detection.homogeneity.homogeneity`);
    - the number of new rows outside the range of n training rows is beta-binomial(m, 2, n - 1).

    Example:
        >>> from pushforward.data import Schema
        >>> from pushforward.detection.column_summary import ColumnSummaries
        >>> x = np.random.default_rng(0).normal(size=(1000, 1))
        >>> schema = Schema.infer(x)
        >>> tally = ColumnTally(ColumnSummaries.fit(schema, x).columns(schema)[0])
        >>> tally.add(x[:, 0] + 1)
        >>> found = tally.compare()
        >>> found.drifted, found.missing_changed
        (True, False)
    """

    summary: ColumnSummary
    counts: np.ndarray = field(init=False)
    below: int = 0
    above: int = 0
    unseen: int = 0
    missing: int = 0
    low: float = np.nan
    high: float = np.nan
    new: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = np.zeros(len(self.summary.counts), dtype=np.int64)

    def add(self, values: np.ndarray, counted: Any = None) -> None:
        """Count new cells.

        Args:
            values: float64 ``(n,)``: NaN is missing, and an infinite code is unseen.
            counted: the unseen categories with their counts, :attr:`Problem.counted <pushforward.data.Problem.counted>`. Without
                it each unseen cell counts as a category of its own, which can hide a frequent new one.
        """
        for entry in () if counted is None or self.summary.numeric else counted.to_pylist():
            name = entry["values"]
            if name in self.new or len(self.new) < _MOST_NEW:
                self.new[name] = self.new.get(name, 0) + entry["counts"]
        present = values[~np.isnan(values)]
        self.missing += len(values) - len(present)
        if not present.size:
            return
        if not self.summary.numeric:
            known = present < len(self.counts)
            self.unseen += int((~known).sum())
            self.counts += np.bincount(present[known].astype(int), minlength=len(self.counts))
            return
        edges = self.summary.edges
        self.low, self.high = np.fmin(self.low, present.min()), np.fmax(self.high, present.max())
        inside = (present >= edges[0]) & (present <= edges[-1])
        self.below += int((present < edges[0]).sum())
        self.above += int((present > edges[-1]).sum())
        place = np.searchsorted(edges, present[inside], side="left")
        self.counts += np.bincount(place, minlength=len(self.counts))

    def compare(self, tests: int = 1) -> ColumnDrift:
        """The difference from the training column.

        Args:
            tests: number of columns that are tested together.
        """
        summary, rows = self.summary, int(self.counts.sum()) + self.below + self.above + self.unseen
        outside = self.below + self.above
        if summary.present == 0 or rows == 0:
            distance, p, p_outside = 0.0, 1.0, 1.0
        elif summary.numeric:
            before = np.concatenate(([0], summary.counts, [0])) / summary.present
            after = np.concatenate(([self.below], self.counts, [self.above])) / rows
            distance = float(np.abs(np.cumsum(before) - np.cumsum(after)).max())
            p = kolmogorov_smirnov(distance, summary.present, rows)
            p_outside = at_least_outside(outside, summary.present, rows)
        else:
            # Each unseen category is a class of its own: all of them together have no training row by construction, so as one class
            # they would make a column with many rare categories drift always.
            known = list(self.new.values())
            rest = self.unseen - sum(known)
            parts = np.diff(np.arange(min(rest, _MOST_NEW) + 1) * rest // max(1, min(rest, _MOST_NEW)))
            unseen = np.append(np.array(known, dtype=np.int64), parts)
            before, after = np.pad(summary.counts, (0, len(unseen))), np.append(self.counts, unseen)
            distance = 0.5 * float(np.abs(before / summary.present - after / rows).sum())
            p, p_outside = homogeneity(before, after, SIGNIFICANCE / tests), 1.0
        cells = ((summary.missing, summary.rows - summary.missing), (self.missing, rows))
        return ColumnDrift(
            summary, self.counts.copy(), self.below, self.above, self.unseen, self.missing, float(self.low), float(self.high),
            min(1.0, distance), p, _equal_fractions(*cells), p_outside, tests,
        )  # fmt: skip


def at_least_outside(count: int, n: int, m: int) -> float:
    """P(at least ``count`` of m new values are outside the range of n values of the same continuous distribution).

    The two outer gaps between n values have the distribution of any two gaps, such as those above the second largest. At
    least k new values are above it if at most one of the k + 1 largest of all n + m values is one of the n.
    """
    from scipy.stats import hypergeom

    return float(hypergeom.cdf(1, n + m, n, count + 1)) if count else 1.0


def _equal_fractions(before: tuple[int, int], after: tuple[int, int]) -> float:
    if not before[0] + after[0] or not before[1] + after[1] or not sum(after):
        return 1.0
    return homogeneity(np.array(before), np.array(after))
