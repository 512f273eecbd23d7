"""One column of a fitted table: its kind, how it is recognized, and its way into and out of float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.data.arrow import compute, is_text, value_type
from pushforward.data.cells import (
    TIMES,
    Cells,
    category_cells,
    flag_cells,
    number_cells,
    seconds_to_time,
    text_of,
    time_kind,
)
from pushforward.data.lattice import MAX_CELLS, detect_lattice, integer_lattice
from pushforward.errors import InputError, SchemaError, StorageError

__all__ = ["KINDS", "MAX_CATEGORIES", "Column"]

KINDS = ("numeric", "integer", "boolean", "categorical")
MAX_CATEGORIES = 1000
_LONGEST_TEXT = 1000
_FEW = 20  # so many distinct texts are categories, in however few rows
_CODES = (0.0, 1.0)


@dataclass(frozen=True)
class Column:
    """What one column of a fitted table is.

    Attributes:
        name: of the column.
        kind: "numeric", "integer", "boolean" or "categorical". Instants and durations are numeric: seconds since
            1970-01-01 UTC, since midnight, or in all.
        categories: texts of a categorical column, the most frequent first (then by name); its codes are their places.
        missing: whether missing cells were seen at fit.
        lattice: (origin, step) where the values lie on a lattice, see :func:`~pushforward.data.detect_lattice`; (0, 1)
            for codes and flags; None for a continuous column.
        time: what kind of instant a numeric column holds: "timestamp", "timestamp_utc", "date", "time" or "duration";
            "" for plain numbers.

    Raises:
        SchemaError: if these do not belong together.
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

        require(isinstance(self.name, str) and len(self.name) <= _LONGEST_TEXT, "the name is no text of at most 1000.")
        require(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}; got {self.kind!r}.")
        require(isinstance(self.missing, bool), "missing must be true or false.")
        texts = self.categories
        require(isinstance(texts, tuple) and len(texts) <= MAX_CATEGORIES, f"more than {MAX_CATEGORIES} categories.")
        require(all(isinstance(t, str) and 0 < len(t) <= _LONGEST_TEXT for t in texts), "a category is no short text.")
        require(len(set(texts)) == len(texts), "a category stands twice.")
        require((self.kind == "categorical") == bool(texts), "only a categorical column has categories, at least one.")
        if self.lattice is not None:
            whole = isinstance(self.lattice, tuple) and len(self.lattice) == 2
            require(whole and all(isinstance(v, float) and math.isfinite(v) for v in self.lattice), "no lattice.")
            require(self.lattice[1] > 0, "the step of the lattice is not positive.")
        if self.kind in ("boolean", "categorical"):
            require(self.lattice == _CODES, "flags and codes lie on the lattice (0.0, 1.0).")
        require(self.time in ("", *TIMES) and (not self.time or self.kind == "numeric"), "unknown kind of instant.")

    @classmethod
    def infer(cls, name: str, data: Any) -> Column:
        """Recognize a column from its training cells (a pyarrow array).

        Raises:
            SchemaError: for a column that cannot be modeled, with what to do: only missing cells, infinities, free
                text or identifiers (more than 1000 texts, or more texts than half the rows), nested cells or bytes.
        """
        import pyarrow as pa

        if data.null_count == len(data):
            raise SchemaError(f"column {name!r} holds only missing cells: drop it.")
        kind = value_type(data.type)
        if pa.types.is_boolean(kind) and not pa.types.is_dictionary(data.type):
            return cls(name, "boolean", missing=data.null_count > 0, lattice=_CODES)
        if is_text(kind) or pa.types.is_dictionary(data.type):
            return cls._infer_categories(name, data)
        time = time_kind(kind)
        values = number_cells(name, data, time).values
        present = values[~np.isnan(values)]
        if present.size == 0:
            raise SchemaError(f"column {name!r} holds only missing cells: drop it.")
        if np.isinf(present).any():
            row = int(np.isinf(values).argmax())
            raise SchemaError(
                f"column {name!r}, row {row} (counted from 0), holds {values[row]}: training needs finite numbers, "
                "drop the row or make the cell missing."
            )
        missing = present.size < values.size
        if not time and (pa.types.is_integer(kind) or _looks_like_counts(present)):
            exact = np.abs(present).max() < 2.0**53
            return cls(name, "integer", missing=missing, lattice=integer_lattice(present) if exact else None)
        return cls(name, "numeric", missing=missing, lattice=detect_lattice(present), time=time)

    @classmethod
    def _infer_categories(cls, name: str, data: Any) -> Column:
        pc = compute()
        text = text_of(name, data)
        present = len(text) - text.null_count
        if present == 0:
            raise SchemaError(f"column {name!r} holds only missing cells: drop it.")
        distinct = pc.count_distinct(text).as_py()
        if distinct > MAX_CATEGORIES or distinct > max(_FEW, present / 2):
            raise SchemaError(
                f"column {name!r} holds {distinct} different texts in {present} rows, as identifiers or free text do: "
                "drop it (or convert it, if these are numbers or dates)."
            )
        if pc.max(pc.utf8_length(text)).as_py() > _LONGEST_TEXT:
            raise SchemaError(f"column {name!r} holds texts of more than {_LONGEST_TEXT} characters: drop it.")
        try:
            counts = [(-c["counts"], c["values"]) for c in pc.value_counts(pc.drop_null(text)).to_pylist()]
        except UnicodeDecodeError:  # a damaged file: Arrow does not look at the bytes of a text
            raise InputError(f"column {name!r} holds bytes that are not UTF-8 text.") from None
        categories = tuple(category for _, category in sorted(counts))
        return cls(name, "categorical", categories, missing=present < len(text), lattice=_CODES)

    def read(self, data: Any) -> Cells:
        """The cells of a pyarrow column as this column's float64."""
        if self.kind == "categorical":
            return category_cells(self.name, data, self.categories)
        return flag_cells(self.name, data) if self.kind == "boolean" else number_cells(self.name, data, self.time)

    def decode(self, values: np.ndarray) -> Any:
        """Float64 back to a pyarrow array: integers rounded, codes to categories, NaN to null.

        Raises:
            SchemaError: for a value that stands for no cell of this column (an unseen category, an infinite integer).
        """
        import pyarrow as pa

        missing = np.isnan(values)
        if self.time:
            return seconds_to_time(self.name, values, self.time)
        if self.kind == "numeric":
            return pa.array(values, mask=missing)
        limit = {"integer": 2.0**63, "boolean": 2.0}.get(self.kind, float(len(self.categories)))
        whole = np.rint(np.where(missing, 0.0, values))
        bad = (whole >= limit) | (whole < (-limit if self.kind == "integer" else 0.0))
        if bad.any():
            row = int(bad.argmax())
            raise SchemaError(
                f"column {self.name!r}, row {row} (counted from 0): {values[row]} stands for no cell of this "
                f"{self.kind} column."
            )
        whole = whole.astype(np.int64)
        if self.kind == "integer":
            return pa.array(whole, mask=missing)
        if self.kind == "boolean":
            return pa.array(whole.astype(bool), mask=missing)
        return pa.array(self.categories).take(pa.array(whole, mask=missing))

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
        """Back from :meth:`to_json`, trusting nothing.

        Raises:
            StorageError: if the content is not a column that pushforward writes.
        """
        keys = {"name", "kind", "categories", "missing", "lattice", "time"}
        if not isinstance(data, Mapping) or set(data) != keys:
            raise StorageError("the file describes a column in a way that pushforward does not write.")
        lattice, categories = data["lattice"], data["categories"]
        try:
            if isinstance(lattice, (list, tuple)):
                lattice = tuple(float(v) if type(v) in (int, float) else v for v in lattice)
            return cls(**{**data, "categories": _as_tuple(categories), "lattice": lattice})
        except (SchemaError, TypeError, OverflowError) as error:
            raise StorageError(f"the file describes a column that cannot be: {error}") from error

    def __str__(self) -> str:
        what = self.time or self.kind
        if self.categories:
            what += f" ({len(self.categories)})"
        elif self.lattice is not None and self.kind != "boolean" and self.lattice[1] != 1.0:
            what += f" in steps of {self.lattice[1]:g}"
        return f"{self.name}: {what}{', may be missing' if self.missing else ''}"


def _as_tuple(items: Any) -> Any:
    return tuple(items) if isinstance(items, (list, tuple)) and len(items) <= MAX_CATEGORIES else None


def _looks_like_counts(values: np.ndarray) -> bool:
    """Whole numbers of at most a million cells, more than one of them: counts that were stored as floats."""
    low, high = float(values.min()), float(values.max())
    if max(abs(low), abs(high)) >= 2.0**53 or not 0 < high - low <= MAX_CELLS:
        return False
    return bool(np.all(values == np.rint(values)))
