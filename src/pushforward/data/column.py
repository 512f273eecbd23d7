"""One column of a fitted table: how its kind is recognized, and how its cells are converted to float64 and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.data.arrow import compute, is_text, numpy_column, value_type
from pushforward.data.cells import (
    TIMES,
    Cells,
    are_times,
    category_cells,
    codes_of,
    flag_cells,
    number_cells,
    seconds_to_time,
    text_of,
    time_kind,
)
from pushforward.data.lattice import MAX_CELLS, detect_lattice, integer_lattice
from pushforward.data.text import date_order, number_form, other_cell
from pushforward.errors import InputError, SchemaError, StorageError

__all__ = ["CODED", "KINDS", "MAX_CATEGORIES", "Column"]

KINDS = ("numeric", "integer", "boolean", "categorical")
CODED = ("boolean", "categorical")
"""Kinds of columns whose cells are codes of flags or categories, not numbers."""
MAX_CATEGORIES = 1000
_LONGEST_TEXT = 1000
_FEW = 20  # this many distinct texts are categories, however few rows there are
_CODES = (0.0, 1.0)
_LEAVE_OUT = "drop it or name it in ignore=, on the command line --drop"


@dataclass(frozen=True)
class Column:
    """What one column of a fitted table is.

    Attributes:
        name: of the column.
        kind: "numeric", "integer", "boolean" or "categorical". Instants and durations are numeric: seconds since
            1970-01-01 UTC, since midnight, or in all.
        categories: texts of a categorical column, the most frequent first (then by name). The code of a category is its
            index here.
        missing: whether the column had missing cells at fit.
        lattice: (origin, step) where the values lie on a lattice, see :func:`~pushforward.data.detect_lattice`; (0, 1)
            for codes and flags; None for a continuous column.
        time: the kind of instants in a numeric column: "timestamp", "timestamp_utc", "date", "time" or "duration";
            "" for plain numbers.

    Raises:
        SchemaError: if the attributes contradict each other.

    Example:
        >>> import pushforward as pf
        >>> schema = pf.data.Schema.infer(pf.data.as_table({"age": [41, 23], "city": ["A", "B"]}))
        >>> [(column.name, column.kind) for column in schema.columns]
        [('age', 'integer'), ('city', 'categorical')]
    """

    name: str
    kind: str
    categories: tuple[str, ...] = ()
    missing: bool = False
    lattice: tuple[float, float] | None = None
    time: str = ""

    def __post_init__(self) -> None:
        def require(condition: bool, message: str) -> None:
            if not condition:
                raise SchemaError(f"column {str(self.name)[:80]!r}: {message}")

        require(
            isinstance(self.name, str) and len(self.name) <= _LONGEST_TEXT,
            "the name must be text of at most 1000 characters.",
        )
        require(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        require(isinstance(self.missing, bool), "missing must be true or false.")
        texts = self.categories
        require(isinstance(texts, tuple) and len(texts) <= MAX_CATEGORIES, f"more than {MAX_CATEGORIES} categories.")
        short = all(isinstance(t, str) and 0 < len(t) <= _LONGEST_TEXT for t in texts)
        require(short, f"a category must be text of 1 to {_LONGEST_TEXT} characters.")
        require(len(set(texts)) == len(texts), "two categories are the same.")
        require(
            (self.kind == "categorical") == bool(texts),
            "a categorical column needs at least one category, and other columns have none.",
        )
        if self.lattice is not None:
            pair = isinstance(self.lattice, tuple) and len(self.lattice) == 2
            require(
                pair and all(isinstance(v, float) and math.isfinite(v) for v in self.lattice),
                "lattice must be a pair of finite numbers, (origin, step).",
            )
            require(self.lattice[1] > 0, "the step of the lattice must be positive.")
        if self.kind in CODED:
            require(self.lattice == _CODES, "the lattice of flags and codes must be (0.0, 1.0).")
        require(
            self.time in ("", *TIMES) and (not self.time or self.kind == "numeric"),
            f"time must be empty or, in a numeric column, one of {', '.join(TIMES)}.",
        )

    @classmethod
    def infer(cls, name: str, data: Any) -> Column:
        """Recognize a column from its training cells (a pyarrow array).

        Raises:
            SchemaError: for a column that cannot be modeled, with what to do: only missing cells, infinities, free
                text or identifiers (more than 1000 texts, or more than 20 and more than half the rows), nested cells or bytes.
        """
        return cls.infer_encode(name, data)[0]

    @classmethod
    def infer_encode(cls, name: str, data: Any) -> tuple[Column, np.ndarray]:
        """Recognize a column as :meth:`infer` does, and return its cells as float64 too: they are read once."""
        import pyarrow as pa

        if data.null_count == len(data):
            raise SchemaError(_only_missing(name))
        kind = value_type(data.type)
        if pa.types.is_boolean(kind) and not pa.types.is_dictionary(data.type):
            return cls(name, "boolean", missing=data.null_count > 0, lattice=_CODES), flag_cells(name, data).values
        if is_text(kind) or pa.types.is_dictionary(data.type):
            return cls._infer_categories(name, data)
        time = time_kind(kind)
        values = number_cells(name, data, time).values
        return cls.infer_numbers(name, values, integers=pa.types.is_integer(kind), time=time), values

    @classmethod
    def infer_numbers(cls, name: str, values: np.ndarray, *, integers: bool = False, time: str = "") -> Column:
        """Recognize a column of numbers from its training cells in float64, NaN where missing.

        Args:
            name: of the column.
            values: ``(rows,)``.
            integers: whether the cells were stored as integers.
            time: the kind of instants that the numbers are, see :class:`Column`.

        Raises:
            SchemaError: as :meth:`infer`.
        """
        present = values[~np.isnan(values)]
        if present.size == 0:
            raise SchemaError(_only_missing(name))
        if np.isinf(present).any():
            row = int(np.isinf(values).argmax())
            raise SchemaError(
                f"column {name!r}, row {row} (counted from 0): the cell is {values[row]}, and training needs finite "
                "numbers: drop the row or make the cell missing."
            )
        missing = present.size < values.size
        if not time and (integers or _looks_like_counts(present)):
            exact = np.abs(present).max() < 2.0**53
            return cls(name, "integer", missing=missing, lattice=integer_lattice(present) if exact else None)
        return cls(name, "numeric", missing=missing, lattice=detect_lattice(present), time=time)

    @classmethod
    def _infer_categories(cls, name: str, data: Any) -> tuple[Column, np.ndarray]:
        pc = compute()
        text = text_of(name, data)
        present = len(text) - text.null_count
        if present == 0:
            raise SchemaError(_only_missing(name))
        distinct = pc.count_distinct(text).as_py()
        if distinct > MAX_CATEGORIES or distinct > max(_FEW, present / 2):
            form, example = ("", "") if date_order(text) else number_form(text)
            if form:
                how = "a decimal comma" if form == "comma" else "other signs"
                advice = "read the file with decimal=',', on the command line --decimal ','"
                advice = advice if form == "comma" else "write them as plain numbers, such as 1234.5"
                raise SchemaError(
                    f"column {name!r} has numbers with {how}, such as {example!r}, which are text: {advice}, or leave it out with ignore=, on the "
                    "command line --drop."
                )
            raise SchemaError(
                f"column {name!r} has {distinct} different texts in {present} rows, like identifiers or free text: "
                + _advice(text)
            )
        if pc.max(pc.utf8_length(text)).as_py() > _LONGEST_TEXT:
            raise SchemaError(f"column {name!r} has texts of more than {_LONGEST_TEXT} characters: {_LEAVE_OUT}.")
        try:
            counts = [(-c["counts"], c["values"]) for c in pc.value_counts(pc.drop_null(text)).to_pylist()]
        except UnicodeDecodeError:  # a damaged file: Arrow does not check the bytes of a text
            raise InputError(
                f"column {name!r} has bytes that are not UTF-8 text: decode them with their own encoding, or drop the column."
            ) from None
        categories = tuple(category for _, category in sorted(counts))
        column = cls(name, "categorical", categories, missing=present < len(text), lattice=_CODES)
        return column, codes_of(text, categories)

    def read(self, data: Any) -> Cells:
        """Read cells as this column: a pyarrow column, or a vector of float64 with NaN where missing."""
        if isinstance(data, np.ndarray):
            if self.kind not in CODED:
                return Cells(data)
            data = numpy_column(self.name, data)
        if self.kind == "categorical":
            return category_cells(self.name, data, self.categories)
        return flag_cells(self.name, data) if self.kind == "boolean" else number_cells(self.name, data, self.time)

    def text(self, value: float) -> str:
        """One encoded cell as text for a sentence; instants that Python cannot represent too."""
        cell = self.decode(np.array([value]))
        try:
            found = cell[0].as_py()
        except (OverflowError, ValueError):
            return "an instant outside the years 1 to 9999"
        return repr(found) if isinstance(found, str) else f"{found:.12g}" if isinstance(found, float) else str(found)

    def decode(self, values: np.ndarray) -> Any:
        """Convert float64 back to a pyarrow array: integers are rounded, codes become categories, NaN becomes null.

        Raises:
            SchemaError: for a value that no cell of this column can have (the code of no category, an infinite integer).
        """
        import pyarrow as pa

        missing = np.isnan(values)
        if self.time:
            return seconds_to_time(self.name, values, self.time)
        if self.kind == "numeric":
            return pa.array(values, mask=missing)
        whole = np.rint(np.where(missing, 0.0, values))
        bad = ~self.decodable(values)
        if bad.any():
            row = int(bad.argmax())
            raise SchemaError(
                f"column {self.name!r}, row {row} (counted from 0): {values[row]} is not a value of this "
                f"{self.kind} column: correct the cell."
            )
        whole = whole.astype(np.int64)
        if self.kind == "integer":
            return pa.array(whole, mask=missing)
        if self.kind == "boolean":
            return pa.array(whole.astype(bool), mask=missing)
        return pa.array(self.categories).take(pa.array(whole, mask=missing))

    def decodable(self, values: np.ndarray) -> np.ndarray:
        """Whether each number is one that :meth:`decode` can convert, as NaN always is, ``(n,)``."""
        if self.time:
            return are_times(values, self.time)
        if self.kind == "numeric":
            return np.ones(len(values), dtype=bool)
        limit = {"integer": 2.0**63, "boolean": 2.0}.get(self.kind, float(len(self.categories)))
        whole = np.rint(values)
        return np.isnan(values) | ((whole < limit) & (whole >= (-limit if self.kind == "integer" else 0.0)))

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {
            "name": self.name,
            "kind": self.kind,
            "categories": list(self.categories),
            "missing": self.missing,
            "lattice": None if self.lattice is None else list(self.lattice),
            "time": self.time,
        }

    @classmethod
    def from_json(cls, data: Any) -> Column:
        """Rebuild a column from :meth:`to_json`; the content may come from an untrusted file.

        Raises:
            StorageError: if the content is not a column that pushforward writes.
        """
        keys = {"name", "kind", "categories", "missing", "lattice", "time"}
        if not isinstance(data, Mapping) or set(data) != keys:
            raise StorageError(
                "the file describes a column in a form that pushforward never writes: use an intact copy."
            )
        lattice, categories = data["lattice"], data["categories"]
        try:
            if isinstance(lattice, (list, tuple)):
                lattice = tuple(float(v) if type(v) in (int, float) else v for v in lattice)
            return cls(**{**data, "categories": _as_tuple(categories), "lattice": lattice})
        except (SchemaError, TypeError, OverflowError) as error:
            raise StorageError(f"the file describes an impossible column: {error}") from error

    def __str__(self) -> str:
        what = self.time or self.kind
        if self.categories:
            what += f" ({len(self.categories)})"
        elif self.lattice is not None and self.kind != "boolean" and self.lattice[1] != 1.0:
            what += f" in steps of {self.lattice[1]:g}"
        return f"{self.name}: {what}{', may be missing' if self.missing else ''}"


def _only_missing(name: str) -> str:
    return f"column {name!r} has only missing cells: {_LEAVE_OUT}."


def _as_tuple(items: Any) -> Any:
    return tuple(items) if isinstance(items, (list, tuple)) and len(items) <= MAX_CATEGORIES else None


def _advice(text: Any) -> str:
    """What to do with a column of different texts, by its first cells."""
    if order := date_order(text):
        how = "Convert the column" if order == "year" else "Write them as 2026-12-31 23:59:59"
        return (
            f"its cells, such as {compute().drop_null(text)[0].as_py()[:30]!r}, seem to be dates. {how} to have them read "
            "as instants (pandas.to_datetime converts them), or set the column aside with ignore=, on the command line --drop."
        )
    if found := other_cell(text):
        what, count, example = found
        return (
            f"{count} of these cells are {what}, and others are not, such as {example[:30]!r}. Leave those empty to have {what}, or set the column "
            "aside with ignore=, on the command line --drop."
        )
    return f"{_LEAVE_OUT} (or convert it, if these are numbers or dates)."


def _looks_like_counts(values: np.ndarray) -> bool:
    """Whether these are counts that were stored as floats: whole numbers with a span of 1 to a million."""
    low, high = float(values.min()), float(values.max())
    if max(abs(low), abs(high)) >= 2.0**53 or not 0 < high - low <= MAX_CELLS:
        return False
    return bool(np.all(values == np.rint(values)))
