"""Writing a table in chunks, so that a file is either whole or absent."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pushforward.data.files import file_format
from pushforward.data.tables import as_table
from pushforward.errors import InputError, PushforwardError, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableWriter"]


class TableWriter:
    """Appends tables to one CSV, TSV, Parquet or Arrow file, as a context manager.

    Rows go to a temporary file beside the target, which takes the target's name when the block ends without an error.
    Until then a file of that name is untouched, and after an error nothing of the new one is left. Columns and their
    types are those of the first table.

    Args:
        path: of the file; its ending is its format: .csv, .csv.gz, .tsv, .tsv.gz, .parquet, .arrow or .feather.

    Raises:
        StorageError: for another ending, if the file cannot be written, or if no table was.
        InputError: for a table that differs from the first one, or a column that the format cannot hold.

    Example:
        >>> import pathlib, tempfile
        >>> from pushforward.data import read_table
        >>> path = pathlib.Path(tempfile.mkdtemp(), "t.csv")
        >>> with TableWriter(path) as writer:
        ...     writer.write({"a": [1, 2]})
        ...     writer.write({"a": [3]})
        >>> read_table(path).num_rows
        3
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.rows = 0
        self._format = file_format(self.path)
        if self._format in ("npy", "npz"):
            raise StorageError(f"tables are not written as .{self._format}: name a .parquet or .csv file.")
        self._temporary: Path | None = None
        self._sink: Any = None
        self._writer: Any = None
        self._schema: Any = None

    def __enter__(self) -> Self:
        if self.path.is_dir():
            raise StorageError(f"{self.path} is a directory: name a file in it.")
        temporary = self.path.parent / f".{self.path.name[:100]}.{secrets.token_hex(8)}.part"
        try:
            os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error.strerror or error}.") from error
        self._temporary = temporary
        return self

    def write(self, data: Any) -> None:
        """Append the rows of anything that :func:`~pushforward.data.as_table` takes."""
        if self._temporary is None:
            raise StorageError("a TableWriter writes only inside its with-block.")
        table = as_table(data).replace_schema_metadata(None)
        if self._format in ("csv", "tsv"):
            table = _printable(table)
        try:
            if self._writer is None:
                self._writer, self._schema = self._open(table.schema), table.schema
            elif table.column_names != self._schema.names:
                raise InputError(f"this chunk has columns {table.column_names}, the first had {self._schema.names}.")
            self._writer.write_table(_cast(table, self._schema))
        except PushforwardError:
            raise
        except OSError as error:
            raise StorageError(f"{self.path} cannot be written: {error}") from error
        except (ValueError, NotImplementedError, TypeError) as error:  # what Arrow raises for types it cannot write
            raise InputError(f"a column cannot be written to {self.path}: {error}") from error
        self.rows += table.num_rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._temporary is not None
        temporary, self._temporary = self._temporary, None
        try:
            if kind is not None:
                with contextlib.suppress(Exception):  # the error that ended the block is the one to report
                    self._close()
                return
            if self._writer is None:
                raise StorageError(f"nothing was written to {self.path}: there was no table.")
            self._close()
            with temporary.open("rb") as file:
                os.fsync(file.fileno())  # bytes on the disk before the file takes its name
            os.replace(temporary, self.path)
        except OSError as failure:
            if isinstance(failure, StorageError):
                raise
            raise StorageError(f"{self.path} cannot be written: {failure}") from failure
        finally:
            temporary.unlink(missing_ok=True)

    def _open(self, schema: pa.Schema) -> Any:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        compressed = self.path.name.lower().endswith(".gz")
        self._sink = pa.output_stream(str(self._temporary), compression="gzip" if compressed else None)
        if self._format == "parquet":
            return pyarrow.parquet.ParquetWriter(self._sink, schema)
        if self._format == "arrow":
            return pa.ipc.new_file(self._sink, schema)
        options = pyarrow.csv.WriteOptions(delimiter="," if self._format == "csv" else "\t")
        return pyarrow.csv.CSVWriter(self._sink, schema, write_options=options)

    def _close(self) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
        finally:
            if self._sink is not None:
                self._sink.close()


def _cast(table: pa.Table, schema: pa.Schema) -> pa.Table:
    import pyarrow as pa

    try:
        return table if table.schema == schema else table.cast(schema)
    except pa.ArrowInvalid as error:
        raise InputError(f"this chunk's column types do not fit those of the first: {error}") from error


def _printable(table: pa.Table) -> pa.Table:
    """Columns as CSV can hold them: dictionaries become text, nested cells are refused."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            table = table.set_column(i, field.name, table.column(i).cast(field.type.value_type))
        elif pa.types.is_nested(field.type):
            raise InputError(f"column {field.name!r} holds {field.type}, which a text file cannot: write .parquet.")
    return table
