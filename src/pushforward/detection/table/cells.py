"""`Cells`: what the reports on a row's cells read of a fitted score, and what is where in its feature matrix."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from pushforward.detection.table.conditional import NEAR, Conditional, conditional, residuals
from pushforward.detection.table.linear import Linear
from pushforward.detection.table.reasons import Reasons
from pushforward.detection.table.similar import Similar, similar

__all__ = ["SHARES", "Cells"]

SHARES = 50
"""Similar rows among which categories and missing cells are counted."""

_PASSES = 3  # of the prediction of unknown cells from each other


class Cells:
    """The cells of a table as a fitted score sees them.

    Args:
        reasons: training rows, and how well their columns follow from each other.
        coded: whether each column has codes of categories or flags, boolean ``(columns,)``.
        flags: position in the feature matrix of the missing indicator of each column, -1 for none, ``(columns,)``.
        score: of rows of the feature matrix.
        soft: the soft space of rows of the feature matrix.
        from_soft: the inverse, by coordinate.
        linear: the Gaussian of the soft space.
        coordinate: matrix column of each coordinate, ``(d,)``.
        circle: whether a coordinate is cos or sin of an instant, boolean ``(d,)``.
        placed: the rows of ``reasons`` in the soft space.

    Attributes:
        count: number of columns.
        group: column of each coordinate, ``(d,)``.
        value: position in the feature matrix of each column's value, ``(columns,)``.
        first: coordinate of each column's value, ``(columns,)``.
        places: the coordinates on circles of each column of instants.
        present: whether a cell of a training row has a value, ``(m, columns)``.
    """

    def __init__(
        self,
        reasons: Reasons,
        *,
        coded: np.ndarray,
        flags: np.ndarray,
        score: Callable[[np.ndarray], np.ndarray],
        soft: Callable[[np.ndarray], np.ndarray],
        from_soft: Callable[[np.ndarray], np.ndarray],
        linear: Linear,
        coordinate: np.ndarray,
        circle: np.ndarray,
        placed: np.ndarray,
    ) -> None:
        self.reasons, self.coded, self.flags = reasons, coded, flags
        self.score, self.soft, self.from_soft = score, soft, from_soft
        self.linear, self.placed, self.count = linear, placed, reasons.count
        self.group = reasons.groups[coordinate]
        self.value = np.array([int(np.flatnonzero(reasons.groups == g)[0]) for g in range(self.count)])
        self.first = np.array([int(np.flatnonzero(coordinate == j)[0]) for j in self.value])
        instants = set(self.group[circle].tolist())
        self.places = {column: np.flatnonzero(circle & (self.group == column)) for column in instants}
        self.present = np.ones((len(reasons.rows), self.count), dtype=bool)
        flagged = flags >= 0  # a missing cell has a value that took its place
        self.present[:, flagged] = reasons.rows[:, flags[flagged]] < 0.5
        self._apart = reasons.apart(coordinate, circle)
        self._near = max(NEAR, SHARES if coded.any() or flagged.any() else 0)

    def similar(self, point: np.ndarray, unknown: np.ndarray) -> Similar:
        """The training rows near a row of the soft space, without the unknown columns."""
        return similar(point, self.placed, self.group, self.count, self._near, unknown)

    def conditional(self, point: np.ndarray, near: Similar) -> Conditional:
        """Each coordinate of a row of the soft space given those of the other columns."""
        residual = residuals(self.linear, point[None], self._apart)[0]
        return conditional(point, residual, self.reasons, near, self.group)

    def filled(self, row: np.ndarray, unknown: np.ndarray, near: Similar) -> tuple[np.ndarray, np.ndarray]:
        """A row whose unknown cells are those of the nearest training row, numbers then as predicted; also in the soft space."""
        row = row.copy()
        lost = unknown[self.reasons.groups]
        row[lost] = self.reasons.rows[near.overall[0], lost]
        point = self.soft(row[None])[0]
        numbers = unknown & ~self.coded
        for _ in range(_PASSES if numbers.any() else 0):
            middle = self.conditional(point, near).middle
            row[self.value[numbers]] = self.from_soft(middle[None])[0][self.first[numbers]]
            point = self.soft(row[None])[0]
        return row, point
