"""`TableFeatures`: the numbers that a density reads of a table, and what missing and unseen cells mean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import numpy as np

from pushforward.data import Column, Schema
from pushforward.data.calendar import PERIODS, calendar_columns, periods_of
from pushforward.data.column import CODED
from pushforward.data.instants import ends_of
from pushforward.errors import InputError, StorageError, in_words
from pushforward.transforms import AugmentMissing, Cast, Jitter, LatticeDequantize, SoftTail, Standardize, Transform

__all__ = ["TableFeatures"]

_NAMED = 3  # columns that a warning names, at most
_MARGIN = 0.05  # of the span of the training rows
_COMPARED = (
    0.05,
    0.75,
)  # quantiles; all later rows are like a quarter of the training rows, not like a rare end of them
_ROUNDING = 1e-12  # relative difference of numbers that differ by the rounding of float64 arithmetic only
_ROUNDING_OF_ZERO = 1e-15  # what rounding leaves of a difference of equal numbers near 1


_MOST_DECIMALS = 9
"""Decimals of a lattice up to which its points are rounded to them."""


@dataclass(frozen=True)
class TableFeatures:
    """The feature matrix that a density reads of an encoded table, and the cost of cells that the training rows did not have.

    The matrix has a coordinate for each column that is not constant, then a missing indicator (1 where missing) for each
    column with missing cells in the training rows. Values on a lattice are dequantized, by :meth:`preprocessing`.

    A cell is *unseen* if it is a category that training did not have, a missing value in a column that had none, or
    another value than the one of a constant column. Each unseen cell costs log((n + 2) / (s + 1)) nats, where s is the
    number of categories of the column that one training row has, and 0 for other news. With s = 0 that is minus the log of
    the probability that the rule of succession gives to an event that n rows did not show. About s / n is the probability
    that the next row has a new category (Good 1953, eq. 9), so new values of a column that always has some cost little. The
    density reads the column's usual value in its place. There is one exception: if neither the training rows nor the rows
    for early stopping had a missing value in a column of numbers, a missing value is infinitely unlikely there.

    Attributes:
        schema: names, types and categories of the columns.
        kept: the table column of each value coordinate.
        indicators: the value coordinates that have a missing indicator, in the order of the indicators.
        fills: the usual value (median, or most frequent category) of each value coordinate.
        constants: table columns that were constant, and their value.
        lattices: matrix coordinates on a lattice, with origin and step.
        rows: number of training rows, n.
        calendar: value coordinates of instants, each with a period that :meth:`impute` reads too.
        instants: value coordinates of timestamps and dates, with the first and the last one of the training rows, and the
            5th and the 75th percentile, to which :meth:`impute` clips them.
        singletons: table columns of categories of which some are in one training row each, and how many, s.
    """

    schema: Schema
    kept: tuple[int, ...]
    indicators: tuple[int, ...]
    fills: tuple[float, ...]
    constants: tuple[tuple[int, float], ...]
    lattices: tuple[tuple[int, float, float], ...]
    rows: int
    calendar: tuple[tuple[int, str], ...] = ()
    instants: tuple[tuple[int, float, float, float, float], ...] = ()
    singletons: tuple[tuple[int, int], ...] = ()

    @classmethod
    def fit(cls, schema: Schema, encoded: np.ndarray) -> TableFeatures:
        """Choose the features from training rows.

        Args:
            schema: of the table.
            encoded: ``(n, columns)`` float64 of :meth:`Schema.encode <pushforward.data.Schema.encode>`.
        """
        kept, indicators, fills, constants, lattices = [], [], [], [], []
        calendar, instants, singletons = [], [], []
        for i, column in enumerate(schema.columns):
            values = encoded[:, i]
            missing = np.isnan(values)
            observed = values[~missing]
            first = float(observed[0]) if observed.size else 0.0
            rounding = 0.0 if column.kind == "integer" else _ROUNDING
            constant = bool(
                np.all(np.abs(observed / 2 - first / 2) <= rounding / 2 * abs(first))
            )  # halves do not overflow
            if constant and not missing.any():
                constants.append((i, first))
                continue
            if missing.any():
                indicators.append(len(kept))
            if column.kind == "categorical":
                single = int((np.bincount(observed.astype(np.int64)) == 1).sum())
                singletons += [(i, single)] if single else []
            if column.lattice is not None:
                lattices.append((len(kept), *column.lattice))
            elif constant:  # only the indicator varies; a density of the constant value would be unbounded
                lattices.append((len(kept), first, 1.0))
            calendar += [(len(kept), period) for period in periods_of(values, column.time)]
            if column.time in ("timestamp", "timestamp_utc", "date"):
                low, high = np.quantile(observed, _COMPARED)
                first, last = ends_of(observed)
                instants.append((len(kept), min(first, float(low)), max(last, float(high)), float(low), float(high)))
            fills.append(_usual(column.kind, observed))
            kept.append(i)
        lattices += [(len(kept) + k, 0.0, 1.0) for k in range(len(indicators))]
        return cls(
            schema, tuple(kept), tuple(indicators), tuple(fills), tuple(constants), tuple(lattices), len(encoded),
            tuple(calendar), tuple(instants), tuple(singletons),
        )  # fmt: skip

    @property
    def n_features(self) -> int:
        """Width of the matrix."""
        return len(self.kept) + len(self.indicators)

    @property
    def owners(self) -> tuple[int, ...]:
        """The value coordinate to which each column of :meth:`impute` belongs."""
        return (*range(len(self.kept)), *self.indicators, *(k for k, _ in self.calendar for _ in range(2)))

    def transform(self, encoded: np.ndarray) -> np.ndarray:
        """The feature matrix of encoded rows: ``(n, columns)`` to ``(n, n_features)``."""
        kept = list(self.kept)
        values = encoded[:, kept]
        missing = np.isnan(values)
        values = np.where(missing | self._unseen(encoded)[:, kept], np.asarray(self.fills), values)
        never = np.array([self._never_missing(i) for i in kept], dtype=bool)
        values[missing & never] = np.inf
        flags = missing[:, list(self.indicators)].astype(np.float64)
        return np.concatenate((values, flags), axis=1)

    def unseen_cost(self, encoded: np.ndarray) -> np.ndarray:
        """The nats that the unseen cells of encoded rows cost, ``(n, columns)``."""
        return self.cost(encoded, self._unseen(encoded))

    def cost(self, encoded: np.ndarray, news: np.ndarray) -> np.ndarray:
        """The nats that cells cost which are news, ``(n, columns)``; +inf for an infinite number in a constant column.

        Args:
            encoded: ``(n, columns)``.
            news: which cells are news, see :meth:`impute`.
        """
        nats = math.log(self.rows + 2) * news
        for i, single in self.singletons:
            nats[np.isinf(encoded[:, i]), i] -= math.log(single + 1)
        nats[news & self.infinite(encoded)] = math.inf
        return nats

    def infinite(self, encoded: np.ndarray) -> np.ndarray:
        """Which cells are infinite numbers, boolean ``(n, columns)``; an infinite code is a category that is unseen."""
        return np.isinf(encoded) & np.array([column.kind not in CODED for column in self.schema.columns])

    def row_costs(self, encoded: np.ndarray, news: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The nats of each row's news, ``(n,)`` each: of new categories in columns that always have some, and of all others.

        A column always has new categories if some categories are in one training row each.

        Args:
            encoded: ``(n, columns)``.
            news: which cells are news, see :meth:`impute`.
        """
        nats = self.cost(encoded, news)
        columns = [i for i, _ in self.singletons]
        usual = np.where(np.isinf(encoded[:, columns]), nats[:, columns], 0.0).sum(1)
        return usual, nats.sum(1) - usual

    def impute(self, encoded: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The feature matrix for scores that need finite numbers, and which cells are news.

        As :meth:`transform`, but a missing number in a column that had none is the usual value too. Instants beyond the
        5th and 75th percentile of the training rows count as these, so later rows are compared with the last quarter and
        are no news; cos and sin of their place in the day, week and year follow as further columns.

        Args:
            encoded: ``(n, columns)``.

        Returns:
            The matrix, ``(n, len(owners))``, infinite only where a number is. And whether each cell is unseen, or a missing
            value in a column that had none, ``(n, columns)``.
        """
        matrix = self.transform(encoded)
        kept = list(self.kept)
        never = np.array([self._never_missing(i) for i in kept], dtype=bool) & np.isnan(encoded[:, kept])
        matrix[:, : len(kept)] = np.where(never, np.asarray(self.fills), matrix[:, : len(kept)])
        news = self._unseen(encoded)
        news[:, kept] |= never
        circles = [calendar_columns(matrix[:, k], period) for k, period in self.calendar]
        for k, _, _, low, high in self.instants:
            matrix[:, k] = np.where(np.isfinite(matrix[:, k]), np.clip(matrix[:, k], low, high), matrix[:, k])
        return np.concatenate((matrix, *circles), axis=1), news

    def fractions(self, encoded: np.ndarray) -> np.ndarray:
        """Which cells are no whole numbers in a column of integers, boolean ``(n, columns)``."""
        integers = np.array([column.kind == "integer" for column in self.schema.columns])
        return integers & np.isfinite(encoded) & (encoded != np.rint(encoded))

    def reaching(self, encoded: np.ndarray) -> TableFeatures:
        """With first and last instants that take in those of further normal rows, ``(n, columns)``."""
        instants = []
        for k, first, last, low, high in self.instants:
            values = encoded[:, self.kept[k]]
            values = values[np.isfinite(values)]
            if values.size:
                earliest, latest = ends_of(values)
                first, last = min(first, earliest), max(last, latest)
            instants.append((k, first, last, low, high))
        return replace(self, instants=tuple(instants))

    def outside(self, encoded: np.ndarray) -> list[str]:
        """A sentence for each column of instants with rows clearly before or after the normal rows that are known."""
        found = []
        for k, first, last, _, _ in self.instants:
            column, values = self.schema.columns[self.kept[k]], encoded[:, self.kept[k]]
            margin = _MARGIN * (last - first)
            for beyond, word, end in (
                (values > last + margin, "after", last),
                (values < first - margin, "before", first),
            ):
                if np.any(beyond & np.isfinite(values)):
                    instant = column.text(end)
                    found.append(
                        f"column {column.name!r}: rows are {word} the normal rows that are known ({'the last' if word == 'after' else 'the first'} is "
                        f"{instant}); their distance in time is not news, so only day, week and year are compared. The promise is for "
                        f"later rows only if the latest rows calibrated: fit(X, time={column.name!r}), on the command line --time."
                    )
        return found

    def changed_constants(self, encoded: np.ndarray) -> list[str]:
        """A sentence for each column that was constant and has another value now, or one for all if they are more than three.

        New categories and missing cells are not counted.
        """
        found = []
        for i, value in self.constants:
            column, values = self.schema.columns[i], encoded[:, i]
            if np.any(np.isfinite(values) & ~(np.abs(values - value) <= constant_tolerance(column, value))):
                found.append((column, value))
        if len(found) > _NAMED:
            names = ", ".join(repr(column.name) for column, _ in found[:_NAMED])
            return [
                f"{len(found)} columns that had one value ({names}, ...): rows have another one, and no row had one at fit; this raises the anomaly score."
            ]
        return [
            f"column {column.name!r}: rows have another value than {column.text(value)}, and no row had one at fit; this raises the anomaly score."
            for column, value in found
        ]

    def inverse_transform(self, matrix: np.ndarray) -> np.ndarray:
        """Encoded rows of a feature matrix (samples): ``(n, n_features)`` to ``(n, columns)``."""
        encoded = np.empty((len(matrix), len(self.schema)))
        for column, value in self.constants:
            encoded[:, column] = value
        values = matrix[:, : len(self.kept)].copy()
        for k, coordinate in enumerate(self.indicators):
            values[matrix[:, len(self.kept) + k] > 0.5, coordinate] = np.nan
        encoded[:, list(self.kept)] = values
        return encoded

    def decodable(self, encoded: np.ndarray) -> np.ndarray:
        """Whether each encoded row (of a sample) has only codes of categories and flags, integers, and times that exist, ``(n,)``."""
        fits = [column.decodable(encoded[:, i]) for i, column in enumerate(self.schema.columns)]
        return np.logical_and.reduce(fits)

    def on_lattices(self, encoded: np.ndarray) -> np.ndarray:
        """Encoded rows of a sample, whose numbers on a lattice are the nearest of its points, free of float32's rounding."""
        encoded = encoded.copy()
        for k, origin, step in self.lattices:
            if k < len(self.kept):
                values = origin + step * np.rint((encoded[:, self.kept[k]] - origin) / step)
                digits = max(_decimals(origin), _decimals(step))
                encoded[:, self.kept[k]] = values.round(digits) if digits <= _MOST_DECIMALS else values
        return encoded

    def by_column(self, terms: np.ndarray) -> np.ndarray:
        """Add up the nats of the matrix coordinates, ``(n, n_features)``, by table column, ``(n, columns)``."""
        total = np.zeros((len(terms), len(self.schema)))
        total[:, list(self.kept)] = terms[:, : len(self.kept)]
        for k, coordinate in enumerate(self.indicators):
            total[:, self.kept[coordinate]] += terms[:, len(self.kept) + k]
        return total

    def preprocessing(self, jitter: float = 0.05) -> list[Transform]:
        """The transforms that prepare the feature matrix for a flow, in float64; the last one casts to float32.

        Missing values are augmented and lattice columns dequantized (not those whose origin or step float32 cannot hold).
        Then follow robust scaling (median and quartiles), a soft tail beyond three robust deviations, and Gaussian noise
        while training.

        Args:
            jitter: standard deviation of that noise, in robust deviations.
        """
        width = self.n_features
        transforms: list[Transform] = []
        lattices = [entry for entry in self.lattices if _in_single_precision(*entry[1:])]
        if self.indicators:
            flags = tuple(len(self.kept) + k for k in range(len(self.indicators)))
            spacing = {coordinate: step for coordinate, _, step in lattices}
            steps = tuple(spacing.get(coordinate, 1.0) for coordinate in self.indicators)
            transforms.append(AugmentMissing(width, columns=self.indicators, indicators=flags, steps=steps))
        if lattices:
            coordinates, origins, steps = zip(*lattices, strict=True)
            transforms.append(LatticeDequantize(width, columns=coordinates, steps=steps, origins=origins))
        transforms += [Standardize(width, robust=True), SoftTail(width, width=3.0)]
        return [*(part.double() for part in transforms), Cast(width), Jitter(width, std=jitter)]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "schema": self.schema.to_json(), "kept": list(self.kept), "indicators": list(self.indicators),
            "fills": list(self.fills), "constants": [list(pair) for pair in self.constants],
            "lattices": [list(entry) for entry in self.lattices], "rows": self.rows,
            "calendar": [list(pair) for pair in self.calendar], "instants": [list(each) for each in self.instants],
            "singletons": [list(pair) for pair in self.singletons],
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Any) -> TableFeatures:
        """Rebuild features from :meth:`to_json`; the content may come from an untrusted file.

        Raises:
            StorageError: if the content is not one that pushforward writes.
        """
        if not isinstance(data, Mapping) or "schema" not in data:
            raise StorageError(
                "the file describes the table's features in a form that pushforward never writes: use an intact copy."
            )
        schema = Schema.from_json(data["schema"])
        try:
            kept = tuple(_index(i, len(schema)) for i in data["kept"])
            indicators = tuple(_index(i, len(kept)) for i in data["indicators"])
            fills = tuple(_number(value) for value in data["fills"])
            constants = tuple((_index(i, len(schema)), _number(value)) for i, value in data["constants"])
            width = len(kept) + len(indicators)
            lattices = tuple((_index(i, width), _number(o), _number(s)) for i, o, s in data["lattices"])
            rows = _index(data["rows"])
            calendar = tuple((_index(k, len(kept)), _period(name)) for k, name in data.get("calendar", ()))
            instants = tuple(
                (_index(k, len(kept)), _number(a), _number(b), _number(c), _number(d))
                for k, a, b, c, d in data.get("instants", ())
            )
            singletons = tuple((_index(i, len(schema)), _index(s, rows + 1)) for i, s in data.get("singletons", ()))
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise StorageError(
                f"the file describes the table's features in a form that pushforward never writes: {in_words(error)}"
            ) from error
        if sorted([*kept, *(i for i, _ in constants)]) != list(range(len(schema))) or list(kept) != sorted(kept):
            raise StorageError("the file's features must have each column once and in order, as kept or as constant.")
        if len(fills) != len(kept) or len(set(indicators)) < len(indicators):
            raise StorageError("the file's features need one usual value each, and at most one missing indicator.")
        if not all(_are_cells(np.array([fill]), schema.columns[i]) for i, fill in zip(kept, fills, strict=True)):
            raise StorageError(
                "the file's features have a usual value that is no category of its column: use an intact copy."
            )
        if any(not schema.columns[kept[k]].time for k in (*(k for k, _ in calendar), *(each[0] for each in instants))):
            raise StorageError("the file's features read instants in a column that has none.")
        if len(set(calendar)) < len(calendar) or len({each[0] for each in instants}) < len(instants):
            raise StorageError("the file's features read the same instants twice.")
        if len({i for i, _, _ in lattices}) < len(lattices) or not all(step > 0 for _, _, step in lattices):
            raise StorageError("the file's features need at most one lattice each, and its step must be positive.")
        if not all(first <= low <= high <= last for _, first, last, low, high in instants):
            raise StorageError("the file's features have an instant before the first one.")
        if any(schema.columns[i].kind != "categorical" for i, _ in singletons):
            raise StorageError("the file's features count categories in a column that has none: use an intact copy.")
        return cls(schema, kept, indicators, fills, constants, lattices, rows, calendar, instants, singletons)

    def check_matrix(self, rows: np.ndarray) -> None:
        """Check that stored rows of the matrix, from an untrusted file, have codes of the categories, and flags.

        Args:
            rows: ``(m, len(owners))``.

        Raises:
            StorageError: if not.
        """
        flags = rows[:, len(self.kept) : self.n_features]
        cells = all(_are_cells(rows[:, k], self.schema.columns[i]) for k, i in enumerate(self.kept))
        if not cells or not np.all(np.isin(flags, (0.0, 1.0))):
            raise StorageError("its stored rows have a cell that is no category of its column: use an intact copy.")

    def _never_missing(self, column: int) -> bool:
        """Whether a missing cell is infinitely unlikely in a column: numbers of which none was missing."""
        facts = self.schema.columns[column]
        return not facts.missing and facts.kind not in CODED

    def _unseen(self, encoded: np.ndarray) -> np.ndarray:
        """Whether each cell is unseen, ``(n, columns)``; not where a missing cell is infinitely unlikely instead."""
        with_indicator = {self.kept[coordinate] for coordinate in self.indicators}
        if_missing = [i not in with_indicator and not self._never_missing(i) for i in range(len(self.schema))]
        unseen = np.isnan(encoded) & np.array(if_missing, dtype=bool)
        coded = [i for i, column in enumerate(self.schema.columns) if column.kind in CODED]
        unseen[:, coded] |= np.isinf(encoded[:, coded])
        for i, value in self.constants:
            near = constant_tolerance(self.schema.columns[i], value)
            unseen[:, i] = ~(np.abs(encoded[:, i] - value) <= near)  # NaN is another value too
        return unseen


def _are_cells(values: np.ndarray, column: Column) -> bool:
    """Whether numbers can be encoded cells of a column: the codes of its categories or flags, or any numbers."""
    if column.kind not in CODED:
        return True
    return bool(np.all(np.isin(values, np.arange(2 if column.kind == "boolean" else len(column.categories)))))


def _usual(kind: str, observed: np.ndarray) -> float:
    """The usual one of the values of a column: the most frequent category or flag, or the lower median, which lies on the lattice."""
    if kind in CODED:
        return float(np.bincount(observed.astype(np.int64)).argmax())
    middle = (observed.size - 1) // 2
    return float(np.partition(observed, middle)[middle])


def constant_tolerance(column: Column, value: float) -> float:
    """How far another number may be from the value of a constant column.

    Integers are compared exactly, as float64, which rounds those above 2^53. Of other numbers rounding is allowed for, a relative
    1e-12, and fractions may have been stored with another precision than those of training: 0.1 and the float32 nearest to it are one value.
    """
    if column.kind != "numeric":
        return 0.0
    near = _ROUNDING * abs(value)
    if value and (column.time or value == round(value)):
        return near
    if value == 0.0:
        return _ROUNDING_OF_ZERO
    with np.errstate(over="ignore", under="ignore"):
        single = np.float32(value)
    written = float(str(single))  # a float64 of the digits of a float32
    apart = [abs(other - value) for other in (float(single), written) if math.isfinite(other)]
    return max([near, *apart]) if single else near


def _index(value: Any, below: int = 1 << 40) -> int:
    if type(value) is not int or not 0 <= value < below:
        raise InputError(f"{str(value)[:80]} is not an integer from 0 to {below - 1}: use an intact copy of the file.")
    return value


def _period(name: Any) -> str:
    if name not in PERIODS:
        raise InputError(f"{str(name)[:80]} is not a period of the calendar: use an intact copy of the file.")
    return name


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise InputError(f"{str(value)[:80]} is not a finite number: use an intact copy of the file.")
    return float(value)


def _decimals(value: float) -> int:
    """Decimals of the shortest text of a number."""
    exponent = Decimal(repr(value)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _in_single_precision(origin: float, step: float) -> bool:
    """Whether float32, in which transforms keep a lattice, has numbers of the size of its origin and its step."""
    limits = np.finfo(np.float32)
    smallest, largest = float(limits.tiny), float(limits.max)
    return abs(origin) <= largest and smallest <= step <= largest
