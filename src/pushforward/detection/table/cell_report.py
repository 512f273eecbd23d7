"""`CellReport`: the part of a row's score that is due to each cell, and the cell's usual values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pushforward.detection.table.cells import Cells
from pushforward.detection.table.replacement import Replacements
from pushforward.detection.table.usual_cells import UsualCells, own_range

__all__ = ["CellReport", "report_cells"]

_EXAMINED = 24  # columns of a row whose cells are replaced


@dataclass(frozen=True)
class CellReport:
    """What reasons say of each column, ``(n, columns)``.

    Attributes:
        excess: part of the score that is due to the cell, nats.
        low, high: range of 95 % of the rows with such other columns; of coded columns the most likely code. Within the values of
            the training rows; NaN where they lie outside of them, because the other columns are unlike those of any training row.
        own_low, own_high: range of 95 % of all training rows that have a value.
        p_value: P(as unusual given the other columns) among training rows; of an instant the smallest one of its value and its places
            on the circles of the calendar, times their number.
        share: probability of the most likely code given the other columns, or of a missing cell where it is missing.
    """

    excess: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own_low: np.ndarray
    own_high: np.ndarray
    p_value: np.ndarray
    share: np.ndarray


def report_cells(cells: Cells, matrix: np.ndarray, unknown: np.ndarray, level: float = 0.95) -> CellReport:
    """Report on the cells of some rows.

    Cells that say nothing (unknown categories, for example) are first filled from the nearest training row, so that they do
    not make other columns look unusual. Of a row with many columns the cells of the most unusual 24 are replaced.

    Args:
        cells: the fitted score.
        matrix: rows of the feature matrix, ``(n, w)``, finite.
        unknown: columns whose cells say nothing, boolean ``(n, columns)``.
        level: of the usual range.
    """
    n = len(matrix)
    usual, replacements = UsualCells(cells, n, level), Replacements(cells, n)
    for i, (given, point) in enumerate(zip(matrix, cells.soft(matrix), strict=True)):
        row, near = given, cells.similar(point, unknown[i])
        if unknown[i].any():
            row, point = cells.filled(row, unknown[i], near)
        here = cells.conditional(point, near)
        usual.add(i, row, near, here)
        columns = np.flatnonzero(~unknown[i])
        if len(columns) > _EXAMINED:
            unusual = np.full(cells.count, -1.0)
            np.maximum.at(unusual, cells.group, here.size / usual.half.clip(1e-12) + np.abs(point) / 10)
            columns = np.sort(columns[np.argsort(-unusual[columns], kind="stable")[:_EXAMINED]])
        replacements.add(i, given, row, near, columns, np.flatnonzero(unknown[i]))
    replacements.finish()
    usual.keep_within()
    own_low, own_high = (np.tile(end, (n, 1)) for end in own_range(cells, level))
    return CellReport(
        replacements.excess, usual.low, usual.high, own_low, own_high, usual.p_value, usual.share
    )  # fmt: skip
