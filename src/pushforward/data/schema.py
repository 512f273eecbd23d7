"""The columns of a fitted table, and how new tables are converted to float64 by them.

``column.py`` recognizes the kind of one column; ``pushforward/io/csv.py`` decides the types of a CSV file before that.
"""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.arrow import compute
from pushforward.data.column import CODED, Column
from pushforward.data.tables import as_table, is_positional, number_array
from pushforward.errors import InputError, SchemaError, SchemaWarning, StorageError, warn_caller

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["CellError", "Problem", "Schema", "absent_columns", "counted_from", "present_columns", "similar_name"]

_MAX_COLUMNS = 100_000
_EXAMPLES = 3
_EFFECT = "; this raises the anomaly score."
_INSTANT = "write it as 2026-12-31 23:59:59"
_CORRECT = {
    "": "correct it",
    "timestamp": _INSTANT,
    "timestamp_utc": _INSTANT,
    "date": "write it as 2026-12-31",
    "time": "write it as 23:59:59",
    "duration": "write it in seconds",
}
_SENTENCES = {
    "new": "column {column!r}: {count} rows have a value that no row had at fit ({examples})" + _EFFECT,
    "missing": "column {column!r}: {count} rows have a missing value and no row had one at fit" + _EFFECT,
    "text": "column {column!r}: {count} rows have text that cannot be read ({examples})" + _EFFECT,
    "zoned": "column {column!r}: {count} rows have a time zone, which no row had at fit: their instants are read in UTC; if those of fit were "
    "in another zone, convert these to it and leave the zone out.",
    "unzoned": "column {column!r}: {count} rows have no time zone, which all had at fit: their instants are read as UTC; if they are in another "
    "zone, add it.",
    "extra": "{count} columns that the fitted table did not have are ignored: {examples}.",
    "unnamed": "the fitted table had column names and this one has none: its columns are matched by position.",
    "named": "the fitted table had no column names and this one has some: its columns are matched by position.",
}


class CellError(SchemaError):
    """A cell that does not fit its column.

    Args:
        column: its name.
        row: of the cell, counted from 0.
        what: is wrong, and what to do.
    """

    def __init__(self, column: str, row: int, what: str) -> None:
        super().__init__(column, row, what)
        self.column, self.row, self.what = column, row, what

    def __str__(self) -> str:
        return f"column {self.column!r}, row {self.row} (counted from 0): {self.what}"


@contextmanager
def counted_from(first: int) -> Iterator[None]:
    """Count the row of a :class:`CellError` from the start of a table of which the rows that are read in the ``with`` block are a part.

    Args:
        first: number of the rows before them.
    """
    try:
        yield
    except CellError as error:
        error.row += first
        raise


@dataclass(frozen=True)
class Problem:
    """A difference between a table and the fitted one that is not an error; ``str`` is the sentence for it.

    Attributes:
        kind: "new" (category), "missing", "text", "zoned" or "unzoned" (instants), "extra" (columns), "unnamed" or "named" (table).
        column: the column; "" where the problem is of the whole table.
        count: number of rows, or of extra columns.
        examples: up to three values, or names of extra columns.
        counted: of a column with new values or unreadable text, these texts and how often each occurs, as a struct array of
            pyarrow; None otherwise, and after :meth:`merge`.

    Example:
        >>> from pushforward.data import Problem
        >>> print(Problem("new", "city", 2, ("'C'",)))
        column 'city': 2 rows have a value that no row had at fit ("'C'"); this raises the anomaly score.
    """

    kind: str
    column: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()
    counted: Any = field(default=None, compare=False, repr=False)

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) == _EXAMPLES and self.kind == "extra" else ""
        examples = ", ".join(repr(text[:60]) for text in self.examples) + more
        sentence = _SENTENCES[self.kind].format(column=self.column, count=self.count, examples=examples)
        if self.count == 1:
            for many, one in (
                (" rows have", " row has"),
                ("1 columns that", "1 column that"),
                ("are ignored", "is ignored"),
            ):
                sentence = sentence.replace(many, one, 1)
        return sentence

    def as_warning(self) -> SchemaWarning:
        """A warning with this sentence, and this problem as its ``problem``."""
        warning = SchemaWarning(str(self))
        warning.problem = replace(self, counted=None)
        return warning

    @staticmethod
    def merge(problems: Iterable[Problem]) -> list[Problem]:
        """Merge the problems of a table's chunks into one for each column and kind, with the sum of their counts."""
        merged: dict[tuple[str, str], Problem] = {}
        for problem in problems:
            key = (problem.kind, problem.column)
            before = merged.get(key, Problem(*key))
            count = problem.count if problem.kind == "extra" else before.count + problem.count
            examples = tuple(dict.fromkeys((*before.examples, *problem.examples)))[:_EXAMPLES]
            merged[key] = Problem(*key, count, examples)
        return list(merged.values())


@dataclass(frozen=True)
class Schema:
    """The columns of a fitted table, and the conversion of its cells to float64 and back.

    Attributes:
        columns: in order.
        positional: whether the table was an array, so that columns have positions and no names.

    Example:
        >>> schema = Schema.infer({"age": [31, 45, 38], "city": ["Oslo", "Bern", "Oslo"]})
        >>> print(schema)
        age: integer in steps of 7
        city: categorical (2)
        >>> schema.encode({"city": ["Bern"], "age": [50]})[0]
        array([[50.,  1.]])
    """

    columns: tuple[Column, ...]
    positional: bool = False

    def __post_init__(self) -> None:
        names = self.names
        if not names or len(names) > _MAX_COLUMNS:
            raise SchemaError(f"a table must have between 1 and {_MAX_COLUMNS} columns; got {len(names)}.")
        if len(set(names)) < len(names):
            raise SchemaError("two columns have the same name: rename or drop one.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __str__(self) -> str:
        return "\n".join(map(str, self.columns))

    @classmethod
    def infer(cls, data: Any) -> Schema:
        """Recognize the columns of a training table.

        Integers are integer; so are floats that are whole numbers, at least two of them, with a span of at most a million (counts). Text
        and categories are categorical, booleans boolean. Instants are numeric, in seconds since 1970 UTC (instants
        without a time zone are read as UTC), dates at midnight; times of day and durations are seconds. Decimals are
        numeric. NaN, null and empty text are missing.

        Args:
            data: anything that :func:`~pushforward.data.as_table` takes.

        Raises:
            SchemaError: for a column that cannot be modeled; it names the column and the reason.
            InputError: if ``data`` is not a table, or has no rows.
        """
        return cls.infer_encode(data)[0]

    @classmethod
    def infer_encode(cls, data: Any) -> tuple[Schema, np.ndarray]:
        """Recognize the columns as :meth:`infer` does, and :meth:`encode` the same table; its cells are read once.

        Returns:
            The schema, and float64 ``(rows, columns)``, which may share the memory of an array of float64.
        """
        array = number_array(data)
        if array is not None:
            _require_rows(*array.shape)
            values, integers = array.astype(np.float64, copy=False), array.dtype.kind != "f"
            columns = [Column.infer_numbers(f"x{i}", v, integers=integers) for i, v in enumerate(_columns(values))]
            return cls(tuple(columns), positional=True), values
        table = as_table(data)
        _require_rows(table.num_rows, table.num_columns)
        pairs = [Column.infer_encode(name, table.column(i)) for i, name in enumerate(table.column_names)]
        return cls(tuple(column for column, _ in pairs), is_positional(table)), _side_by_side([v for _, v in pairs])

    def encode(
        self, data: Any, *, strict: bool = True, first_row: int = 0, warn: bool = True, owner: str = "Schema"
    ) -> tuple[np.ndarray, list[Problem]]:
        """Convert a table to float64 by this schema.

        Columns are matched by name, in any order. Arrays are matched by position, and so is any table if the fitted
        one had no names. Extra columns are ignored.

        Args:
            data: anything that :func:`~pushforward.data.as_table` takes; it may have no rows.
            strict: raise for text that is not a number in a number column; otherwise such a cell is +inf.
            first_row: index of the first row in a longer table of which this is a chunk, for the row numbers in errors.
            warn: emit each problem as a :class:`~pushforward.errors.SchemaWarning`.
            owner: the subject of the error for a wrong number of columns.

        Returns:
            Float64 ``(rows, columns)``, which may share the memory of an array of float64: numbers, flags 0 and 1, codes
            of categories, seconds; NaN for a missing cell, +inf for a category that the fitted table did not have. And
            the problems that were found.

        Raises:
            SchemaError: for an absent column, a wrong number of columns, or cells that do not fit their column.
            InputError: if ``data`` is not a table.
        """
        array = number_array(data)
        if array is not None:
            values = array.astype(np.float64, copy=False)
            problems = self._match(values.shape[1], None, owner)[1]
            cells = list(_columns(values))
        else:
            values, table = None, as_table(data, index=self.names)
            names = None if is_positional(table) else table.column_names
            positions, problems = self._match(table.num_columns, names, owner)
            cells = [table.column(i) for i in positions]
        encoded = []
        for column, column_cells in zip(self.columns, cells, strict=True):
            found, more = _read(column, column_cells, strict, first_row)
            encoded.append(found)
            problems += more
        if warn:
            for problem in problems:
                warn_caller(problem.as_warning())
        if values is not None and not any(column.kind in CODED for column in self.columns):
            return values, problems
        return _side_by_side(encoded), problems

    def decode(self, array: Any) -> pa.Table:
        """Convert encoded rows back to a table: integers are rounded, codes become categories, NaN becomes null.

        Args:
            array: ``(rows, columns)``.

        Raises:
            InputError: for a wrong shape.
            SchemaError: for a value that no cell of its column can have.
        """
        import pyarrow as pa

        values = np.asarray(array, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise InputError(f"expected shape (rows, {len(self.columns)}) to decode; got {values.shape}.")
        return pa.table([c.decode(values[:, i]) for i, c in enumerate(self.columns)], names=list(self.names))

    def pyarrow_types(self) -> dict[str, pa.DataType]:
        """The types with which :func:`~pushforward.io.stream_table` reads a text file against this schema.

        Number columns are float64. Everything else is text, which :meth:`encode` reads. Empty for a schema without names.
        """
        import pyarrow as pa

        if self.positional:
            return {}
        types = {"numeric": pa.float64(), "integer": pa.float64()}
        return {column.name: types.get(column.time or column.kind, pa.string()) for column in self.columns}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"positional": self.positional, "columns": [column.to_json() for column in self.columns]}

    @classmethod
    def from_json(cls, data: Any) -> Schema:
        """Rebuild a schema from :meth:`to_json`; the content may come from an untrusted file.

        Raises:
            StorageError: if the content is not a schema that pushforward writes.
        """
        if not isinstance(data, Mapping) or set(data) != {"positional", "columns"}:
            raise StorageError(
                "the file describes the columns in a form that pushforward never writes: use an intact copy."
            )
        columns, positional = data["columns"], data["positional"]
        if not isinstance(columns, (list, tuple)) or len(columns) > _MAX_COLUMNS or not isinstance(positional, bool):
            raise StorageError(
                "the file describes the columns in a form that pushforward never writes: use an intact copy."
            )
        try:
            return cls(tuple(map(Column.from_json, columns)), positional)
        except SchemaError as error:
            raise StorageError(f"the file describes an impossible table: {error}") from error

    def _match(self, count: int, names: list[str] | None, owner: str) -> tuple[list[int], list[Problem]]:
        """Find the position of each fitted column in a table of ``count`` columns; ``names`` is None without names."""
        if names is None or self.positional:
            if count != len(self):
                # scikit-learn's estimator checks look for these words.
                raise SchemaError(f"X has {count} features, but {owner} is expecting {len(self)} features as input.")
            default = [f"x{i}" for i in range(count)] if names is None else names
            same = (names is None) == self.positional or default == list(self.names)
            return list(range(count)), [] if same else [Problem("unnamed" if names is None else "named")]
        position = {name: i for i, name in enumerate(names)}
        absent = [name for name in self.names if name not in position]
        if absent:
            raise SchemaError(absent_columns(absent, names))
        known = set(self.names)
        extra = tuple(name for name in names if name not in known)
        problems = [Problem("extra", "", len(extra), extra[:_EXAMPLES])] if extra else []
        return [position[name] for name in self.names], problems


def _require_rows(rows: int, columns: int) -> None:
    if rows == 0:
        # scikit-learn's estimator checks look for the shape.
        raise InputError(f"the table has 0 rows (shape=(0, {columns})): there is nothing to learn from.")


def _read(column: Column, data: Any, strict: bool, first_row: int) -> tuple[np.ndarray, list[Problem]]:
    """Convert one column's cells, with +inf for those that cannot be read, and list the problems."""
    cells = column.read(data)
    values, problems = cells.values, []
    missing = np.isnan(values)
    for kind, mask in (("text", cells.unreadable), ("new", cells.unseen)):
        if mask is None:
            continue
        try:
            counted = compute().value_counts(cells.text.filter(mask))
            examples = tuple(counted.field("values").slice(0, _EXAMPLES).to_pylist())
        except UnicodeDecodeError:  # a damaged file
            raise InputError(
                f"column {column.name!r} has bytes that are not UTF-8 text: decode them with their own encoding, or drop the column."
            ) from None
        if kind == "text" and strict:
            raise CellError(
                column.name,
                first_row + int(mask.argmax()),
                f"{examples[0][:60]!r} is not a {column.time.split('_')[0] or 'number'}, as the cells of the fitted column are: "
                f"{_CORRECT[column.time]}.",
            )
        problems.append(Problem(kind, column.name, int(mask.sum()), examples, counted))
        values = np.where(mask, np.inf, values)
        missing &= ~mask
    if cells.other_zone:
        problems.append(
            Problem("unzoned" if column.time == "timestamp_utc" else "zoned", column.name, cells.other_zone)
        )
    if not column.missing and missing.any():
        problems.append(Problem("missing", column.name, int(missing.sum())))
    return values, problems


def _columns(values: np.ndarray) -> np.ndarray:
    """The columns of a matrix as contiguous vectors, ``(columns, rows)``."""
    return np.ascontiguousarray(values.T)


def _side_by_side(columns: list[np.ndarray]) -> np.ndarray:
    """A matrix of these columns, written in blocks that fit the processor's cache."""
    rows = len(columns[0])
    matrix = np.empty((rows, len(columns)))
    block = max(64, 32_768 // len(columns))
    for start in range(0, rows, block):
        for i, values in enumerate(columns):
            matrix[start : start + block, i] = values[start : start + block]
    return matrix


def absent_columns(absent: list[str], present: list[str]) -> str:
    """The message for columns that a table lacks, with the most similar name that it has."""
    names = ", ".join(repr(name) for name in absent[:_EXAMPLES]) + (", ..." if len(absent) > _EXAMPLES else "")
    similar = next(filter(None, (similar_name(name, present) for name in absent)), None)
    hint = "" if similar is None else similar_hint(similar, absent)
    return f"the table lacks the column{'s' if len(absent) > 1 else ''} {names}, which the fitted table had{hint}."


def similar_hint(similar: str, absent: list[str]) -> str:
    """The part of a message that says which name a table has instead, and how it differs where that cannot be seen."""
    hint = f"; it has {similar!r}"
    if similar != similar.strip() and similar.strip() in absent:
        return hint + ", with spaces: rename the columns"
    if any(_looks(similar) == _looks(name) for name in absent):
        hint += ", which looks the same and has other Unicode characters: rename the columns, as with unicodedata.normalize('NFC', name)"
    return hint


def _looks(name: str) -> str:
    """A name as it is seen: without spaces around it, and an accented letter is one character, whichever way it is written."""
    return unicodedata.normalize("NFC", name).strip()


def present_columns(wanted: str, present: list[str], most: int = 20) -> str:
    """The names that a table has, for a message on one that it lacks: the most similar one first, and at most ``most`` of them."""
    similar = similar_name(wanted, present)
    ordered = present if similar is None else [similar, *(name for name in present if name != similar)]
    left = len(ordered) - most
    return ", ".join(map(repr, ordered[:most])) + (f" and {left} other{'s' if left > 1 else ''}" if left > 0 else "")


def similar_name(name: str, present: list[str]) -> str | None:
    """The name that differs by spaces around it and by case alone, or else the most similar one; None without any."""
    alike = [other for other in present if _looks(other).casefold() == _looks(name).casefold()]
    found = alike or difflib.get_close_matches(name, present, n=1, cutoff=0.7)
    return found[0] if found else None
