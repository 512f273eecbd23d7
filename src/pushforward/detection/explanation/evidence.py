"""`Evidence`: what is known of each cell of some rows, as arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pushforward.data import Column, Schema
from pushforward.data.column import CODED
from pushforward.detection.explanation.reason import CELL_KINDS
from pushforward.errors import SchemaError

__all__ = ["Evidence"]


@dataclass(frozen=True)
class Evidence:
    """What is known of each cell, arrays ``(rows, columns)`` of float64 unless said otherwise.

    Attributes:
        schema: of the fitted table.
        encoded: the cells, as :meth:`~pushforward.data.Schema.encode` gives them.
        kind: index in :data:`~pushforward.detection.explanation.reason.CELL_KINDS`, int.
        low, high: usual range given the other columns, in the units of ``encoded``; the most likely code twice for a
            category, the value twice for a constant; NaN if unknown.
        own_low, own_high: range of 95 % of all training rows, whatever the other columns are; NaN if unknown.
        p_value: of the cell given the other columns; NaN if unknown.
        share: probability of the most likely category given the other columns, or of a missing cell; NaN if unknown.
        texts: the text of new categories, by row and column.
        calendar: columns of instants whose place in the day, week or year is read.

    Example:
        >>> import numpy as np, pushforward as pf
        >>> rng = np.random.default_rng(0)
        >>> flow = rng.normal(size=500)
        >>> rows = {"flow": flow, "pressure": 2 * flow + 0.1 * rng.normal(size=500)}
        >>> guard = pf.Guard(alpha=0.05, effort="fast", random_state=0).fit(rows)
        >>> explanation = guard.explain({"flow": [0.5], "pressure": [9.0]})
        >>> explanation.evidence.low.shape, bool(explanation.evidence.p_value[0, 1] < 0.01)
        ((1, 2), True)
    """

    schema: Schema
    encoded: np.ndarray
    kind: np.ndarray
    low: np.ndarray
    high: np.ndarray
    own_low: np.ndarray
    own_high: np.ndarray
    p_value: np.ndarray
    share: np.ndarray
    texts: Mapping[tuple[int, int], str] = field(default_factory=dict)
    calendar: frozenset[int] = frozenset()

    def kind_of(self, row: int, column: int) -> str:
        """The kind of a cell."""
        return CELL_KINDS[int(self.kind[row, column])]

    def value(self, row: int, column: int) -> Any:
        """A cell in the table's units."""
        if (row, column) in self.texts:
            return self.texts[row, column]
        return decoded(self.schema.columns[column], float(self.encoded[row, column]))

    def is_new(self, row: int) -> np.ndarray:
        """Which cells of a row are of a kind that no training row has, boolean ``(columns,)``."""
        return self.kind[row] >= CELL_KINDS.index("new category")

    def usual_alone(self, row: int, column: int) -> tuple[Any, ...]:
        """The usual range of a number whatever the other columns are; empty for other cells."""
        facts, low, high = self.schema.columns[column], *(float(a[row, column]) for a in (self.own_low, self.own_high))
        if np.isnan(low) or facts.kind in CODED:
            return ()
        return ends_of(facts, low, high)

    def usual(self, row: int, column: int) -> tuple[Any, ...]:
        """The usual range of a number, or the usual value of a category or constant; see ``Reason.usual``."""
        facts, low, high = self.schema.columns[column], float(self.low[row, column]), float(self.high[row, column])
        if np.isnan(low):
            return ()
        if facts.kind in CODED or self.kind_of(row, column) == "changed constant":
            return (decoded(facts, low),)
        if facts.lattice is not None and facts.kind == "integer":  # the integers in the range
            low, high = np.ceil(low - 1e-9), np.floor(high + 1e-9)
            low, high = min(low, high), max(low, high)
        return ends_of(facts, low, high)


def ends_of(column: Column, low: float, high: float) -> tuple[Any, Any]:
    """Both ends of a range in the table's units; those of instants in whole seconds if the range is longer than a minute."""
    if column.time and high - low > 60:
        low, high = float(np.rint(low)), float(np.rint(high))
        high = min(high, 86_399.0) if column.time == "time" else high
    return decoded(column, low), decoded(column, high)


def decoded(column: Column, value: float) -> Any:
    """One encoded cell in the table's units; None if it is missing."""
    if np.isnan(value):
        return None
    if np.isinf(value):
        return value
    if column.kind == "integer" and value != np.rint(value):
        return value
    try:
        found = column.decode(np.array([value]))[0].as_py()
    except (SchemaError, ValueError, OverflowError):
        return value
    return found
