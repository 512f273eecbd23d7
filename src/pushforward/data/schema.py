"""What a fitted table is, and how a new table is read against it."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.arrow import compute
from pushforward.data.column import Column
from pushforward.data.tables import as_table, is_positional
from pushforward.errors import InputError, SchemaError, SchemaWarning, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Problem", "Schema"]

_MAX_COLUMNS = 100_000
_EXAMPLES = 3
_UNLIKELY = "they are scored as infinitely unlikely."
_UNSEEN = "they are scored as never seen."
_SENTENCES = {
    "new": "column {column!r}: {count} rows hold a value never seen at fit ({examples}); " + _UNSEEN,
    "missing": "column {column!r}: {count} rows have a missing value and none was missing at fit; " + _UNLIKELY,
    "text": "column {column!r}: {count} rows hold text that cannot be read ({examples}); " + _UNLIKELY,
    "extra": "{count} columns that the fitted table did not have are ignored: {examples}.",
    "unnamed": "the fitted table had named columns and this one has none: its columns are matched by position.",
    "named": "the fitted table had no column names and this one has: its columns are matched by position.",
}


@dataclass(frozen=True)
class Problem:
    """A difference between a table and the fitted one that has a decided answer; ``str`` is the sentence for it.

    Attributes:
        kind: "new" (category), "missing", "text", "extra" (columns), "unnamed" or "named" (table).
        column: the column; "" where the table as a whole is meant.
        count: rows concerned, or extra columns.
        examples: up to three values, or names of extra columns.
    """

    kind: str
    column: str = ""
    count: int = 0
    examples: tuple[str, ...] = ()

    def __str__(self) -> str:
        more = ", ..." if self.count > len(self.examples) == _EXAMPLES and self.kind == "extra" else ""
        examples = ", ".join(repr(text[:60]) for text in self.examples) + more
        sentence = _SENTENCES[self.kind].format(column=self.column, count=self.count, examples=examples)
        if self.count == 1:
            for many, one in ((" rows hold", " row holds"), (" rows have", " row has"), ("they are", "it is")):
                sentence = sentence.replace(many, one, 1)
            sentence = sentence.replace("1 columns that", "1 column that").replace("are ignored", "is ignored")
        return sentence

    @staticmethod
    def merge(problems: Iterable[Problem]) -> list[Problem]:
        """Problems of the chunks of one table as problems of the table: rows added up, one for each column and kind."""
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
    """Columns of a fitted table.

    Attributes:
        columns: in order.
        positional: whether the table was an array, so that columns have places and no names.

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
            raise SchemaError("two columns have the same name.")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns, in order."""
        return tuple(column.name for column in self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __str__(self) -> str:
        return "\n".join(map(str, self.columns))

    @classmethod
    def infer(cls, data: Any, positional: bool | None = None) -> Schema:
        """Recognize the columns of a training table.

        Integers are integer; so are floats that are all whole and span at most a million (counts). Text and categories
        are categorical, booleans boolean. Instants are numeric, in seconds since 1970 UTC (a table without zones is
        taken as UTC), dates at midnight; times of day and durations are seconds. Decimals are numeric. NaN, null and
        empty text are missing.

        Args:
            data: anything that :func:`~pushforward.data.as_table` takes.
            positional: whether columns have no names; by default whether ``data`` is an array.

        Raises:
            SchemaError: naming the column that cannot be modeled, and why.
            InputError: if ``data`` is no table, or has no rows.
        """
        table = as_table(data)
        if table.num_rows == 0:
            raise InputError(f"the table has 0 rows (shape=(0, {table.num_columns})): nothing can be learnt from it.")
        columns = tuple(Column.infer(name, table.column(i)) for i, name in enumerate(table.column_names))
        return cls(columns, is_positional(table) if positional is None else positional)

    def encode(
        self,
        data: Any,
        *,
        strict: bool = True,
        positional: bool | None = None,
        first_row: int = 0,
        warn: bool = True,
        owner: str = "Schema",
    ) -> tuple[np.ndarray, list[Problem]]:
        """Read a table against this schema.

        Columns are matched by name, in any order; arrays, and anything against a schema without names, by position.
        Extra columns are ignored. A category never seen at fit, and a missing cell in a column that had none, become
        +inf: infinitely unlikely. Infinities in number columns stay.

        Args:
            data: anything that :func:`~pushforward.data.as_table` takes; no rows are fine.
            strict: refuse text that is no number in a number column; otherwise such cells are +inf too.
            positional: whether the data have no column names; by default whether they are an array.
            first_row: of this chunk in a longer table, for the row numbers in errors.
            warn: give each problem as a :class:`~pushforward.errors.SchemaWarning`.
            owner: who speaks in the error for a wrong number of columns.

        Returns:
            Float64 ``(rows, columns)``: numbers, flags 0/1, codes of categories, seconds, NaN for missing; and the
            problems that were met.

        Raises:
            SchemaError: for a missing column, a wrong number of columns, or cells that do not fit their column.
            InputError: if ``data`` is no table.
        """
        table = as_table(data)
        places, problems = self._match(table, is_positional(table) if positional is None else positional, owner)
        read = []
        for column, place in zip(self.columns, places, strict=True):
            values, met = _read(column, table.column(place), strict, first_row)
            read.append(values)
            problems += met
        if warn:
            for problem in problems:
                warnings.warn(str(problem), SchemaWarning, stacklevel=2)
        return _rows(read), problems

    def decode(self, array: Any) -> pa.Table:
        """Encoded rows back to a table: integers rounded, codes to categories, seconds to instants, NaN to null.

        Args:
            array: ``(rows, columns)``.

        Raises:
            InputError: for a wrong shape.
            SchemaError: for a value that stands for no cell of its column.
        """
        import pyarrow as pa

        values = np.asarray(array, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != len(self.columns):
            raise InputError(f"expected shape (rows, {len(self.columns)}) to decode; got {values.shape}.")
        return pa.table([c.decode(values[:, i]) for i, c in enumerate(self.columns)], names=list(self.names))

    def pyarrow_types(self) -> dict[str, pa.DataType]:
        """The types with which :func:`~pushforward.io.stream_table` reads a text file against this schema.

        Number columns are float64, times of day time64, categories strings. Flags and instants stay text, which
        :meth:`encode` reads. Empty for a schema without names.
        """
        import pyarrow as pa

        if self.positional:
            return {}
        types = {"numeric": pa.float64(), "integer": pa.float64(), "categorical": pa.string(), "time": pa.time64("us")}
        return {c.name: types[c.time or c.kind] for c in self.columns if (c.time or c.kind) in types}

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"positional": self.positional, "columns": [column.to_json() for column in self.columns]}

    @classmethod
    def from_json(cls, data: Any) -> Schema:
        """Back from :meth:`to_json`, trusting nothing.

        Raises:
            StorageError: if the content is not a schema that pushforward writes.
        """
        if not isinstance(data, Mapping) or set(data) != {"positional", "columns"}:
            raise StorageError("the file's description of the columns is not one that pushforward writes.")
        columns, positional = data["columns"], data["positional"]
        if not isinstance(columns, (list, tuple)) or len(columns) > _MAX_COLUMNS or not isinstance(positional, bool):
            raise StorageError("the file's description of the columns is not one that pushforward writes.")
        try:
            return cls(tuple(map(Column.from_json, columns)), positional)
        except SchemaError as error:
            raise StorageError(f"the file describes a table that cannot be: {error}") from error

    def _match(self, table: pa.Table, positional: bool, owner: str) -> tuple[list[int], list[Problem]]:
        """Where each fitted column stands in the table."""
        if positional or self.positional:
            if table.num_columns != len(self.columns):
                # In the words of scikit-learn, whose checks look for them.
                raise SchemaError(
                    f"X has {table.num_columns} features, but {owner} is expecting {len(self)} features as input."
                )
            same = positional == self.positional or table.column_names == list(self.names)
            return list(range(len(self.columns))), [] if same else [Problem("unnamed" if positional else "named")]
        place = {name: i for i, name in enumerate(table.column_names)}
        absent = [name for name in self.names if name not in place]
        if absent:
            raise SchemaError(_absent(absent, table.column_names))
        known = set(self.names)
        extra = tuple(name for name in table.column_names if name not in known)
        problems = [Problem("extra", "", len(extra), extra[:_EXAMPLES])] if extra else []
        return [place[name] for name in self.names], problems


def _read(column: Column, data: Any, strict: bool, first_row: int) -> tuple[np.ndarray, list[Problem]]:
    """One column's values with its answers to what cannot be read, and the problems met."""
    cells = column.read(data)
    values, problems = cells.values, []
    gone = np.isnan(values)
    for kind, mask in (("text", cells.unreadable), ("new", cells.unseen)):
        if mask is None:
            continue
        try:
            examples = tuple(compute().unique(cells.text.filter(mask)).slice(0, _EXAMPLES).to_pylist())
        except UnicodeDecodeError:  # a damaged file
            raise InputError(f"column {column.name!r} holds bytes that are not UTF-8 text.") from None
        if kind == "text" and strict:
            row = first_row + int(mask.argmax())
            raise SchemaError(
                f"column {column.name!r}, row {row} (counted from 0): {examples[0][:60]!r} is no "
                f"{column.time.split('_')[0] or 'number'}, and the fitted column holds only such."
            )
        problems.append(Problem(kind, column.name, int(mask.sum()), examples))
        values = np.where(mask, np.inf, values)
        gone &= ~mask
    if not column.missing and gone.any():
        problems.append(Problem("missing", column.name, int(gone.sum())))
        values = np.where(gone, np.inf, values)
    return values, problems


def _rows(columns: list[np.ndarray]) -> np.ndarray:
    """Columns side by side, written in blocks that fit the processor's cache."""
    rows = len(columns[0])
    out = np.empty((rows, len(columns)))
    block = max(64, 32_768 // len(columns))
    for start in range(0, rows, block):
        for i, values in enumerate(columns):
            out[start : start + block, i] = values[start : start + block]
    return out


def _absent(absent: list[str], present: list[str]) -> str:
    names = ", ".join(repr(name) for name in absent[:_EXAMPLES]) + (", ..." if len(absent) > _EXAMPLES else "")
    close = difflib.get_close_matches(absent[0], present, n=1)
    hint = f"; it has {close[0]!r}" if close else ""
    return f"the table lacks the column{'s' if len(absent) > 1 else ''} {names} that it was fitted with{hint}."
