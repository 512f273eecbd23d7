"""From a fitted table's columns to the matrix that a density reads."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.errors import StorageError

__all__ = ["TableFeatures"]


@dataclass(frozen=True)
class TableFeatures:
    """Which table columns enter the density, where, and what stands for cells that training never saw.

    A cell is *unseen* when it holds a category that training did not have, a missing value in a column that had none,
    or another value in a column that was constant. Each unseen cell costs log(n + 2) nats, minus the log of the
    probability that the rule of succession gives to an event that n rows did not show; the density then reads the
    column's usual value in its place.

    Attributes:
        width: table columns.
        kept: the table column of each value coordinate.
        indicators: the value coordinates that are followed, at the end of the matrix, by a missing indicator.
        fills: the usual value (median, or most frequent category) of each value coordinate.
        constants: table columns that were constant, and their value.
        lattices: matrix coordinates on a lattice, with origin and step.
        coded: table columns of codes, in which +inf is an unseen category; in number columns +inf is a number.
        rows: training rows, n.
    """

    width: int
    kept: tuple[int, ...]
    indicators: tuple[int, ...]
    fills: tuple[float, ...]
    constants: tuple[tuple[int, float], ...]
    lattices: tuple[tuple[int, float, float], ...]
    coded: tuple[int, ...]
    rows: int

    @classmethod
    def fit(
        cls, encoded: np.ndarray, lattices: Sequence[tuple[float, float] | None], coded: Sequence[bool] = ()
    ) -> TableFeatures:
        """Read the layout off training rows.

        Args:
            encoded: ``(n, columns)`` float64, NaN where missing.
            lattices: (origin, step) of each column whose values lie on a lattice, else None.
            coded: whether each column holds codes of categories or flags.
        """
        kept, indicators, fills, constants, steps = [], [], [], [], []
        for column in range(encoded.shape[1]):
            values = encoded[:, column]
            missing = np.isnan(values)
            observed = values[~missing]
            first = float(observed[0]) if observed.size else 0.0
            constant = bool(np.all(np.abs(observed - first) <= 1e-9 * max(1.0, abs(first))))
            if constant and not missing.any():
                constants.append((column, first))
                continue
            if missing.any():
                indicators.append(len(kept))
            lattice = lattices[column]
            if lattice is not None:
                steps.append((len(kept), *lattice))
            elif constant:  # only "missing or not" varies; one cell keeps the value from a density without bound
                steps.append((len(kept), first, 1.0))
            # The lower median is a value that occurs, so it lies on the lattice.
            fills.append(float(np.partition(observed, (observed.size - 1) // 2)[(observed.size - 1) // 2]))
            kept.append(column)
        steps += [(len(kept) + k, 0.0, 1.0) for k in range(len(indicators))]
        codes = tuple(i for i, is_coded in enumerate(coded) if is_coded)
        return cls(
            encoded.shape[1], tuple(kept), tuple(indicators), tuple(fills), tuple(constants), tuple(steps), codes,
            len(encoded),
        )  # fmt: skip

    @property
    def features(self) -> int:
        """Width of the matrix."""
        return len(self.kept) + len(self.indicators)

    def matrix(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The density's matrix, ``(n, features)``, and the nats that unseen cells cost, ``(n, columns)``."""
        surprise = np.zeros(encoded.shape)
        price = math.log(self.rows + 2)
        for column, value in self.constants:
            same = np.abs(encoded[:, column] - value) <= 1e-9 * max(1.0, abs(value))
            surprise[~same, column] = price
        kept, codes = list(self.kept), list(self.coded)
        unseen = np.zeros(encoded.shape, dtype=bool)
        unseen[:, codes] = np.isinf(encoded[:, codes])
        values = encoded[:, kept]
        missing = np.isnan(values)
        foreseen = np.zeros(len(kept), dtype=bool)
        foreseen[list(self.indicators)] = True
        absent = unseen[:, kept] | (missing & ~foreseen)
        surprise[:, kept] += price * absent
        values = np.where(missing | absent, np.asarray(self.fills), values)
        flags = missing[:, list(self.indicators)].astype(np.float64)
        return np.concatenate((values, flags), axis=1), surprise

    def unmatrix(self, matrix: np.ndarray) -> np.ndarray:
        """Rows of the density's matrix (samples) back to encoded table columns."""
        encoded = np.empty((len(matrix), self.width))
        for column, value in self.constants:
            encoded[:, column] = value
        values = matrix[:, : len(self.kept)].copy()
        for k, place in enumerate(self.indicators):
            values[matrix[:, len(self.kept) + k] > 0.5, place] = np.nan
        encoded[:, list(self.kept)] = values
        return encoded

    def by_column(self, terms: np.ndarray) -> np.ndarray:
        """Nats of each matrix coordinate, ``(n, features)``, added up by table column, ``(n, columns)``."""
        total = np.zeros((len(terms), self.width))
        total[:, list(self.kept)] = terms[:, : len(self.kept)]
        for k, place in enumerate(self.indicators):
            total[:, self.kept[place]] += terms[:, len(self.kept) + k]
        return total

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "width": self.width, "kept": list(self.kept), "indicators": list(self.indicators),
            "fills": list(self.fills), "constants": [list(c) for c in self.constants],
            "lattices": [list(entry) for entry in self.lattices], "coded": list(self.coded), "rows": self.rows,
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> TableFeatures:
        """Back from :meth:`to_json`, trusting nothing.

        Raises:
            StorageError: if the content is not a layout.
        """
        try:
            assert isinstance(data, Mapping)
            width, rows = _index(data["width"]), _index(data["rows"])
            kept = tuple(_index(i, width) for i in data["kept"])
            indicators = tuple(_index(i, len(kept)) for i in data["indicators"])
            fills = tuple(_number(v) for v in data["fills"])
            constants = tuple((_index(i, width), _number(v)) for i, v in data["constants"])
            coded = tuple(_index(i, width) for i in data["coded"])
            features = len(kept) + len(indicators)
            lattices = tuple((_index(i, features), _number(o), _number(s)) for i, o, s in data["lattices"])
            assert sorted([*kept, *(i for i, _ in constants)]) == list(range(width))
            assert len(fills) == len(kept)
            assert len(set(indicators)) == len(indicators)
            assert all(step > 0 for _, _, step in lattices)
        except (AssertionError, KeyError, TypeError, ValueError) as error:
            raise StorageError("the file's column layout is not one that pushforward writes.") from error
        return cls(width, kept, indicators, fills, constants, lattices, coded, rows)


def _index(value: Any, below: int = 1 << 40) -> int:
    assert isinstance(value, int)
    assert not isinstance(value, bool)
    assert 0 <= value < below
    return value


def _number(value: Any) -> float:
    assert isinstance(value, (int, float))
    assert not isinstance(value, bool)
    assert math.isfinite(value)
    return float(value)
