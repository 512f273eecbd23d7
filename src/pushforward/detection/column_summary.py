"""`ColumnSummaries`: how the values of each training column are distributed, in little space."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Self

import numpy as np

from pushforward.data import Column, Schema
from pushforward.data.column import CODED
from pushforward.detection.table.state import Arrays

__all__ = ["ColumnSummaries", "ColumnSummary"]

_EDGES = 101
"""Largest number of training quantiles of a column."""


@dataclass(frozen=True)
class ColumnSummary:
    """The distribution of one training column.

    Attributes:
        column: name and kind.
        edges: of numbers, ascending training values: all distinct ones, or at most 101 quantiles, ``(k,)``; else empty.
        counts: training rows at the first edge and in each interval ``(edges[i - 1], edges[i]]``, ``(k,)``; of flags and
            categories, training rows of each code.
        missing: training rows without a value.
        rows: training rows.
    """

    column: Column
    edges: np.ndarray
    counts: np.ndarray
    missing: int
    rows: int

    @property
    def numeric(self) -> bool:
        """Whether the column has numbers, integers or instants, and not flags or categories."""
        return self.column.kind not in CODED

    @property
    def present(self) -> int:
        """Training rows with a value."""
        return int(self.counts.sum())

    def quantile(self, q: float) -> float:
        """The smallest edge with at least a fraction ``q`` of the present training values at or below it."""
        reached = np.cumsum(self.counts) >= q * self.counts.sum() * (1 - 1e-12)
        return float(self.edges[int(reached.argmax())])

    def fraction(self, code: int) -> float:
        """Fraction of the present training values that are this flag or category."""
        return float(self.counts[code]) / max(1, self.present)


class ColumnSummaries(Arrays):
    """The distribution of every training column: quantiles of numbers, counts of flags and categories, missing cells.

    A guard stores it, so that new rows can be compared with the training rows column by column. It takes about a hundred
    numbers for each column.

    Args:
        edges: :attr:`ColumnSummary.edges` of all columns, one after the other.
        counts: :attr:`ColumnSummary.counts` of all columns, one after the other.
        first_edge: index of the first edge of each column, and the number of edges, ``(d + 1,)``.
        first_count: the same of the counts, ``(d + 1,)``.
        missing: training rows without a value in each column, ``(d,)``.
        rows: number of training rows, ``(1,)``.
    """

    edges: np.ndarray
    counts: np.ndarray
    first_edge: np.ndarray
    first_count: np.ndarray
    missing: np.ndarray
    rows: np.ndarray

    @classmethod
    def fit(cls, schema: Schema, encoded: np.ndarray) -> Self:
        """Summarize training rows.

        Args:
            schema: of the table.
            encoded: ``(n, d)``, as :meth:`Schema.encode <pushforward.data.Schema.encode>` gives it.

        Example:
            >>> schema = Schema.infer({"age": [31, 45, 38], "city": ["Oslo", "Bern", "Oslo"]})
            >>> summaries = ColumnSummaries.fit(schema, np.array([[31.0, 0], [45, 1], [38, 0]]))
            >>> age, city = summaries.columns(schema)
            >>> age.quantile(0.5), city.fraction(0)
            (38.0, 0.6666666666666666)
        """
        edges, counts = [], []
        for column, values in zip(schema.columns, encoded.T, strict=True):
            present = values[~np.isnan(values)]
            if column.kind in CODED:
                edges.append(np.zeros(0))
                counts.append(np.bincount(present.astype(int), minlength=_codes(column)).astype(float))
            else:
                edges.append(_edges(present))
                place = np.searchsorted(edges[-1], present, side="left")
                counts.append(np.bincount(place, minlength=len(edges[-1])).astype(float))
        return cls(
            edges=np.concatenate(edges),
            counts=np.concatenate(counts),
            first_edge=np.cumsum([0, *map(len, edges)]),
            first_count=np.cumsum([0, *map(len, counts)]),
            missing=np.isnan(encoded).sum(0),
            rows=np.array([len(encoded)]),
        )

    def columns(self, schema: Schema) -> list[ColumnSummary]:
        """The summary of each column of the schema with which it was fitted."""
        edge, count = self.first_edge.astype(int), self.first_count.astype(int)
        return [
            ColumnSummary(
                column,
                self.edges[edge[j] : edge[j + 1]],
                self.counts[count[j] : count[j + 1]],
                int(self.missing[j]),
                int(self.rows[0]),
            )
            for j, column in enumerate(schema.columns)
        ]

    def fits(self, schema: Schema) -> bool:
        """Whether it can be of a table with these columns; both may come from an untrusted file."""
        if len(self.missing) != len(schema):
            return False
        edges, counts = np.diff(self.first_edge), np.diff(self.first_count)
        for column, width, size in zip(schema.columns, edges, counts, strict=True):
            if (width, size) != ((0, _codes(column)) if column.kind in CODED else (size, max(size, 1))):
                return False
        return True

    def check(self) -> None:
        """Raise ValueError unless the arrays fit each other."""
        for first, values in ((self.first_edge, self.edges), (self.first_count, self.counts)):
            self.require(first.shape == (len(self.missing) + 1,) and values.ndim == 1)
            self.require(first[0] == 0 and first[-1] == len(values) and bool(np.all(np.diff(first) >= 0)))
            self.require(bool(np.all(first == np.rint(first))))
        self.require(self.rows.shape == (1,) and bool(1 <= self.rows[0] < 2.0**53))
        for numbers in (self.counts, self.missing, self.rows):
            self.require(bool(np.all(numbers >= 0) and np.all(numbers == np.rint(numbers))))
        bounds = self.first_edge.astype(int)
        for a, b in itertools.pairwise(bounds):
            self.require(bool(np.all(np.diff(self.edges[a:b]) > 0)))


def _codes(column: Column) -> int:
    return 2 if column.kind == "boolean" else len(column.categories)


def _edges(present: np.ndarray) -> np.ndarray:
    """All distinct values, or quantiles that occur, with the smallest and the largest value."""
    if not present.size:
        return np.zeros(1)
    ordered = np.sort(present)
    distinct = ordered[np.r_[True, ordered[1:] > ordered[:-1]]]
    if len(distinct) <= _EDGES:
        return distinct
    return np.unique(ordered[np.ceil(np.linspace(0, len(ordered) - 1, _EDGES)).astype(int)])
