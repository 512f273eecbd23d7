"""`UsualCells`: which values of a cell are usual given the other columns, and how usual its own is."""

from __future__ import annotations

import numpy as np

from pushforward.detection.table.cells import SHARES, Cells
from pushforward.detection.table.conditional import Conditional
from pushforward.detection.table.similar import Similar

__all__ = ["UsualCells", "own_range"]

_PRIOR = 2.0  # rows that the frequencies of all rows count for
_PRIOR_MISSING = 20.0  # the same for missing cells, which few rows have


class UsualCells:
    """The usual values of the cells of n rows, NaN where none is known; :meth:`add` fills in one row.

    Args:
        cells: the fitted score.
        n: number of rows.
        level: fraction of the training rows with such other columns whose value is in the usual range.

    Attributes:
        low, high, p_value, share: see :class:`~pushforward.detection.table.cell_report.CellReport`, ``(n, columns)``.
        half: half of the width of the usual range, in standard deviations of the prediction, ``(d,)``.
    """

    def __init__(self, cells: Cells, n: int, level: float) -> None:
        self.cells, self.half = cells, cells.reasons.half_width(level)
        self.low, self.high, self.p_value, self.share = (np.full((n, cells.count), np.nan) for _ in range(4))

    def add(self, i: int, row: np.ndarray, near: Similar, here: Conditional) -> None:
        """Fill in the cells of a row of the feature matrix.

        Args:
            i: its position.
            row: ``(w,)``.
            near: training rows near it.
            here: its coordinates given those of the other columns.
        """
        self._numbers(i, here)
        for column in np.flatnonzero(self.cells.coded):
            self._code(i, int(column), row, near)
        for column in np.flatnonzero(self.cells.flags >= 0):
            if row[self.cells.flags[column]]:
                self._missing(i, int(column), near)

    def _numbers(self, i: int, here: Conditional) -> None:
        """Range and p-value of every column, as if all were numbers."""
        cells, least = self.cells, self.cells.reasons.least
        ends = np.array([here.middle - self.half * here.spread, here.middle + self.half * here.spread])
        self.low[i], self.high[i] = cells.from_soft(ends)[:, cells.first]
        tails = cells.reasons.tail(here.size[None])[0]
        self.p_value[i] = np.maximum(tails[cells.first], least)
        for column, places in cells.places.items():
            smallest = min(float(tails[places].min()), float(tails[cells.first[column]]))
            self.p_value[i, column] = np.clip((1 + len(places)) * smallest, least, 1.0)

    def _code(self, i: int, column: int, row: np.ndarray, near: Similar) -> None:
        """The most likely code of a column, and the p-value of the code that is there."""
        cells, at = self.cells, self.cells.value[column]
        present, others = cells.present[:, column], near.others[:, column]
        shares, p_value = _codes(cells.reasons.rows[:, at], present, others[present[others]], float(row[at]))
        self.low[i, column] = self.high[i, column] = float(shares.argmax())
        self.share[i, column], self.p_value[i, column] = shares.max(), p_value

    def _missing(self, i: int, column: int, near: Similar) -> None:
        """How likely a missing cell is in a column that has some."""
        indicator = self.cells.reasons.rows[:, self.cells.flags[column]]
        everywhere = np.ones(len(indicator), dtype=bool)
        shares, p_value = _codes(indicator, everywhere, near.others[:SHARES, column], 1.0, _PRIOR_MISSING)
        self.share[i, column], self.p_value[i, column] = shares[1], p_value

    def keep_within(self) -> None:
        """Clip ranges of numbers to the values of the training rows; NaN for a range outside of them."""
        low, high, coded = self.low, self.high, self.cells.coded
        values = self.cells.reasons.rows[:, self.cells.value]
        least, most = values.min(0), values.max(0)
        rounding = 2e-6 * (most / 2 - least / 2)  # halves do not overflow
        outside = ((high < least - rounding) | (low > most + rounding)) & ~coded
        self.low = np.where(outside, np.nan, np.where(coded, low, np.clip(low, least, most)))
        self.high = np.where(outside, np.nan, np.where(coded, high, np.clip(high, least, most)))


def own_range(cells: Cells, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Range of a fraction ``level`` of the training rows that have a value in a column, ``(columns,)`` each."""
    values, ends = cells.reasons.rows[:, cells.value], ((1 - level) / 2, (1 + level) / 2)
    low, high = np.quantile(values, ends, axis=0)
    for column in np.flatnonzero(cells.present.any(0) & ~cells.present.all(0)):
        low[column], high[column] = np.quantile(values[cells.present[:, column], column], ends)
    return low, high


def _codes(
    codes: np.ndarray, present: np.ndarray, near: np.ndarray, own: float, prior: float = _PRIOR
) -> tuple[np.ndarray, float]:  # fmt: skip
    """The probability of each code among similar rows that have one, and P(a code that is at most as likely as this one)."""
    size = int(max(codes.max(), own)) + 1
    overall = np.bincount(codes[present].astype(int), minlength=size) / max(1, present.sum())
    counts = np.bincount(codes[near].astype(int), minlength=size)
    share = (counts + prior * overall) / (len(near) + prior)
    return share, float(share[share <= share[int(own)] + 1e-12].sum())
