"""`Replacements`: the part of a row's score that is due to each cell, by replacing cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from pushforward.detection.table.cells import Cells
from pushforward.detection.table.similar import Similar

__all__ = ["Replacements"]

_REPLACED = 3  # similar rows whose cells replace a cell
_SCORED = 4096  # rows that are scored at a time


class Replacements:
    """The excess of the cells of n rows; :meth:`add` takes one row, and :meth:`finish` scores what is left.

    The excess of a cell is the mean of two numbers: by how much the score falls when the cells of the three training rows
    that are nearest in the other columns take its place, and by how much the scores of the three nearest training rows rise
    when they get the cell. These are the last and the first step of a Shapley value. The first number alone finds a single
    changed cell; with the second, columns that changed together are found too.

    Args:
        cells: the fitted score.
        n: number of rows.

    Attributes:
        excess: nats, ``(n, columns)``.
    """

    def __init__(self, cells: Cells, n: int) -> None:
        self.cells, self.excess = cells, np.zeros((n, cells.count))
        self._pending: list[tuple[int, np.ndarray, np.ndarray, int]] = []
        self._rows: list[np.ndarray] = []

    def add(
        self, i: int, given: np.ndarray, row: np.ndarray, near: Similar, columns: np.ndarray, unknown: np.ndarray
    ) -> None:  # fmt: skip
        """Take the cells of a row of the feature matrix.

        Args:
            i: its position.
            given: the row as it is, ``(w,)``.
            row: the row whose unknown cells are filled, ``(w,)``.
            near: training rows near it.
            columns: those whose cells are replaced; the others have no excess.
            unknown: columns whose cells say nothing; they share what filling them takes from the score.
        """
        rows, k = _candidates(given, row, self.cells, near, columns)
        self._pending.append((i, columns, unknown, k))
        self._rows.append(rows)
        if sum(map(len, self._rows)) >= _SCORED:
            self.finish()

    def finish(self) -> None:
        """Score the rows that wait."""
        if not self._pending:
            return
        scores = self.cells.score(np.concatenate(self._rows))
        ends = np.cumsum([len(rows) for rows in self._rows])[:-1]
        for (i, columns, unknown, k), own in zip(self._pending, np.split(scores, ends), strict=True):
            self._settle(own, i, columns, unknown, k)
        self._pending.clear()
        self._rows.clear()

    def _settle(self, scores: np.ndarray, i: int, columns: np.ndarray, unknown: np.ndarray, k: int) -> None:
        """Write the excess of one row's cells, from the scores of its :func:`_candidates`."""
        given, own, base = scores[0], scores[1], scores[2 : 2 + k]
        part = scores[2 + k :].reshape(len(columns), 2, k)
        fall, rise = own - part[:, 0].mean(1), (part[:, 1] - base).mean(1)
        self.excess[i, columns] = np.maximum(0.5 * (fall + rise), 0.0)
        if unknown.size:
            self.excess[i, unknown] = max(given - own, 0.0) / len(unknown)


def _candidates(
    given: np.ndarray, row: np.ndarray, cells: Cells, near: Similar, columns: np.ndarray
) -> tuple[np.ndarray, int]:  # fmt: skip
    """The rows whose scores give the excess, and k: the given row, the row, k near rows, then k rows with a replaced and k with an inserted cell."""
    rows, groups = cells.reasons.rows, cells.reasons.groups
    base = rows[near.overall[:_REPLACED]]
    k = len(base)
    parts: list[Any] = [given[None], row[None], base]
    for column in columns:
        mine = groups == column
        replaced = np.repeat(row[None], k, axis=0)
        replaced[:, mine] = rows[near.others[:k, column]][:, mine]
        inserted = base.copy()
        inserted[:, mine] = row[mine]
        parts += [replaced, inserted]
    return np.concatenate(parts), k
