"""Write a table in chunks: to a file that is complete or absent, to a URI, or to standard output."""

from __future__ import annotations

import contextlib
import os
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pushforward.data.arrow import is_text, value_type
from pushforward.data.cells import number_cells
from pushforward.data.tables import as_table
from pushforward.errors import ConfigError, InputError, PushforwardError, StorageError
from pushforward.io.atomic import atomic_write, reason
from pushforward.io.files import FORMATS, TEXT_FORMATS, compression_of, expanded, format_of_name
from pushforward.io.input_file import filesystem_of
from pushforward.io.json_writer import JsonWriter
from pushforward.io.output import remote_write, standard_output

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["WRITTEN", "TableWriter"]

WRITTEN = (*TEXT_FORMATS, "parquet", "arrow")
"""The formats in which tables are written."""


class TableWriter:
    """A context manager that appends tables to one CSV, TSV, JSON Lines, Parquet or Arrow file.

    The file takes its name when the block ends without an error, see :func:`~pushforward.io.atomic.atomic_write`; the same
    is true of a URI. Rows for standard output are written at once. The names and types of the columns are those of the
    first table. A later table may have numbers of another type, if the first one holds them exactly, text or instants in another
    form, and columns without values; a column that has no value in the first table has none in the others.
    Categories are text, except in Parquet. Text has durations in seconds. JSON has neither NaN nor infinity: NaN is written as null, an infinity as the largest float64.
    A missing cell is empty in CSV and TSV, and ``""`` in a table of one column, where a blank line is not a row.

    Args:
        path: the file. Its ending is its format: .csv, .tsv, .jsonl or .ndjson, each also with .gz or .zst; .parquet, .arrow
            or .feather. A URI such as s3://bucket/name.parquet is opened by ``pyarrow.fs.FileSystem.from_uri``. "-" is
            standard output.
        format: csv, tsv, jsonl, parquet or arrow, where the name does not tell; csv for standard output by default.

    Raises:
        StorageError: for another ending, if the file cannot be written, or if no table was written.
        InputError: for a table that differs from the first one, a column that the format cannot store, or an object that is not a path.
        ConfigError: for a format that tables are not written in.

    Example:
        >>> import pathlib, tempfile
        >>> from pushforward.io import read_table
        >>> path = pathlib.Path(tempfile.mkdtemp(), "t.csv")
        >>> with TableWriter(path) as writer:
        ...     writer.write({"a": [1, 2]})
        ...     writer.write({"a": [3]})
        >>> read_table(path).num_rows
        3
    """

    def __init__(self, path: str | os.PathLike[str], format: str | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)):
            raise InputError(f"expected the path of a file to write; got {type(path).__name__}.")
        self.name = "standard output" if path == "-" else str(path)
        self.rows = 0
        self.format = _written_format(path, format)
        located = None if path == "-" else filesystem_of(path)
        if path == "-":
            self._replacement: Any = standard_output()
        elif located is not None and located[0] is not None:
            self._replacement = remote_write(*located, self.name)
        else:
            self._replacement = atomic_write(expanded(located[1] if located else path))
        self._pipe = path == "-"
        self._file: Any = None
        self._sink: Any = None
        self._writer: Any = None
        self._schema: Any = None

    def __enter__(self) -> Self:
        self._file = self._replacement.__enter__()
        return self

    def write(self, data: Any) -> None:
        """Append the rows of any table that :func:`~pushforward.data.as_table` accepts."""
        if self._file is None:
            raise StorageError("a TableWriter writes only inside its with block.")
        table = as_table(data, index=True).replace_schema_metadata(None)
        if self.format in ("csv", "tsv"):
            table = _printable(table)
        else:
            table = _with_codes(table, plain=self.format == "arrow" and not self._pipe)
        try:
            if self._writer is None:
                self._writer, self._schema = self._open(table.schema), table.schema
            elif table.column_names != self._schema.names:
                raise InputError(
                    f"this table has the columns {table.column_names}, and the first one had {self._schema.names}."
                )
            table = _cast(table, self._schema)
            if self.format in ("csv", "tsv") and table.num_columns == 1 and table.column(0).null_count:
                self._write_column(table)
            else:
                self._writer.write_table(table)
            if self._pipe:
                self._file.flush()  # that of pyarrow does nothing for a file of Python
        except (PushforwardError, BrokenPipeError):
            raise
        except OSError as error:
            raise StorageError(f"cannot write {self.name}: {reason(error)}.") from error
        except (ValueError, NotImplementedError, TypeError) as error:  # pyarrow, for types that it cannot write
            raise InputError(f"a column cannot be written to {self.name}: {error}") from error
        self.rows += table.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file = None
        if kind is not None:
            with contextlib.suppress(Exception):  # the error that ended the block is the one to report
                self._close()
            with contextlib.suppress(Exception):
                self._replacement.__exit__(kind, error, trace)
            return
        try:
            if self._writer is None:
                raise StorageError(f"no table was written to {self.name}: write at least one.")
            self._close()
        except BaseException as failure:
            self._replacement.__exit__(type(failure), failure, failure.__traceback__)
            raise
        self._replacement.__exit__(None, None, None)

    def _open(self, schema: pa.Schema) -> Any:
        import pyarrow as pa
        from pyarrow import csv, parquet

        # pyarrow closes what it writes to; the file itself must stay open until its bytes are on disk.
        file = self._file if self._pipe else os.fdopen(os.dup(self._file.fileno()), "wb")
        compression = compression_of(self.name) if self.format in TEXT_FORMATS else None
        self._sink = pa.output_stream(file, compression=compression)
        if self.format == "parquet":
            return parquet.ParquetWriter(self._sink, schema)
        if self.format == "arrow":  # a program that reads a pipe needs the form without an index at the end
            return (pa.ipc.new_stream if self._pipe else pa.ipc.new_file)(self._sink, schema)
        if self.format == "jsonl":
            return JsonWriter(self._sink)
        options = csv.WriteOptions(delimiter="," if self.format == "csv" else "\t")
        return csv.CSVWriter(self._sink, schema, write_options=options)

    def _write_column(self, table: pa.Table) -> None:
        """Write one column with missing cells as "", which pyarrow would write as blank lines."""
        import pyarrow as pa

        column = table.column(0)
        if is_text(column.type) or _family(column.type) == "binary":  # pyarrow quotes these
            self._writer.write_table(table.set_column(0, table.field(0), column.fill_null(pa.scalar("", column.type))))
            return
        cells = column.cast(pa.string()).fill_null('""').to_pylist()
        self._sink.write("".join(f"{cell}\n" for cell in cells).encode())

    def _close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._sink is not None:
                self._sink.close()


def _written_format(path: str | os.PathLike[str], chosen: str | None) -> str:
    """The chosen format, or the one that the name of an output states."""
    choices = f"{', '.join(WRITTEN[:-1])} or {WRITTEN[-1]}"
    if chosen is not None and chosen not in WRITTEN:
        raise ConfigError(f"tables are not written as {chosen}: choose {choices}.")
    found = chosen or ("csv" if path == "-" else format_of_name(path))
    if found not in WRITTEN:
        plain = (ending for ending, kind in FORMATS.items() if kind in WRITTEN and not compression_of(ending))
        raise StorageError(
            f"tables are not written in the format of {path}: let its name end in one of {', '.join(plain)}; or choose {choices} "
            "for any name (format=, on the command line --output-format)."
        )
    return found


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """The table with the types of the first one; pyarrow would also make text of numbers, and instants of integers."""
    import pyarrow as pa

    for field, first in zip(table.schema, schema, strict=True):
        if not pa.types.is_null(field.type) and _family(field.type) != _family(first.type):
            raise InputError(
                f"the column types of this table differ from those of the first one: column {field.name!r} is {field.type}, and was "
                f"{first.type}{', without any value' if pa.types.is_null(first.type) else ''}."
            )
    try:
        return table if table.schema == schema else table.cast(schema)
    except pa.ArrowInvalid as error:
        raise InputError(f"the column types of this table differ from those of the first one: {error}") from error


def _family(kind: Any) -> Any:
    """What all types have in common that can be cast to each other without a change of meaning."""
    from pyarrow import types

    kind = value_type(kind)
    if is_text(kind):
        return "text"
    if types.is_timestamp(kind):
        return "local time" if kind.tz is None else "instant"
    names = {
        "number": (types.is_integer, types.is_floating, types.is_decimal),
        "binary": (types.is_binary, types.is_large_binary, types.is_binary_view, types.is_fixed_size_binary),
        "date": (types.is_date,),
        "time": (types.is_time,),
    }
    return next((name for name, tests in names.items() if any(test(kind) for test in tests)), kind.id)


def _with_codes(table: pa.Table, plain: bool) -> pa.Table:
    """The table with codes of dictionaries that have room for what later tables add; or without codes, since an Arrow file has one dictionary."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if not pa.types.is_dictionary(field.type) or not (plain or field.type.index_type.bit_width < 32):
            continue
        values = field.type.value_type
        kind = values if plain else pa.dictionary(pa.int32(), values, field.type.ordered)
        table = table.set_column(i, field.with_type(kind), table.column(i).cast(kind))
    return table


def _printable(table: pa.Table) -> pa.Table:
    """A table that a text file can store: dictionary columns become plain ones, durations seconds, nested cells are an error."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        kind = value_type(field.type)
        if pa.types.is_duration(kind):  # pyarrow would write a count of the unit, which nothing in the file tells
            seconds = number_cells(field.name, table.column(i), "duration").values
            table = table.set_column(i, field.name, pa.array(seconds, from_pandas=True))
        elif pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(kind))
        elif pa.types.is_nested(field.type):
            raise InputError(
                f"column {field.name!r} has the type {field.type}, which a text file cannot store: write a .parquet file."
            )
    return table
