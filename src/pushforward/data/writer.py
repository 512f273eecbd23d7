"""Writing a table chunk by chunk, whole or not at all."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pushforward.errors import StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["TableWriter"]

_FORMATS = (".csv", ".parquet", ".arrow", ".feather")


class TableWriter:
    """Context manager that appends chunks to a CSV, Parquet or Arrow file.

    The file takes its name when the block ends without an error; until then, and after an error, what stood there
    stands unchanged. Every chunk must have the columns and types of the first.

    Args:
        path: ends in .csv, .parquet, .arrow or .feather.

    Raises:
        StorageError: for another ending, or where the file cannot be written.

    Example:
        >>> import pyarrow as pa, tempfile, os
        >>> path = os.path.join(tempfile.mkdtemp(), "t.csv")
        >>> with TableWriter(path) as writer:
        ...     writer.write(pa.table({"a": [1]}))
        ...     writer.write(pa.table({"a": [2]}))
        >>> open(path).read().split()
        ['"a"', '1', '2']
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        self.suffix = self.path.suffix.lower()
        if self.suffix not in _FORMATS:
            raise StorageError(f"cannot write {self.path}: the name must end in one of {', '.join(_FORMATS)}.")
        self._temporary = self.path.with_name(f".{self.path.name}.{secrets.token_hex(4)}.tmp")
        self._writer: Any = None
        self._sink: Any = None
        self._schema: Any = None

    def __enter__(self) -> Self:
        return self

    def write(self, table: pa.Table) -> None:
        """Append a chunk."""
        import pyarrow as pa

        try:
            if self._writer is None:
                self._open(table.schema)
            self._writer.write_table(table.cast(self._schema))
        except (OSError, pa.ArrowException, ValueError) as error:
            raise StorageError(f"cannot write {self.path}: {error}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._writer is not None:
                self._writer.close()
            if self._sink is not None:
                self._sink.close()
            if kind is None:
                if self._writer is None:
                    raise StorageError(f"nothing was written to {self.path}: the table has no chunks.")
                os.replace(self._temporary, self.path)
        except OSError as failure:
            if kind is None:
                if isinstance(failure, StorageError):
                    raise
                raise StorageError(f"cannot write {self.path}: {failure}") from failure
        finally:
            self._temporary.unlink(missing_ok=True)

    def _open(self, schema: pa.Schema) -> None:
        import pyarrow as pa
        import pyarrow.csv
        import pyarrow.parquet

        self._schema = _plain(schema) if self.suffix == ".csv" else schema
        self._sink = pa.OSFile(str(self._temporary), "wb")
        if self.suffix == ".csv":
            self._writer = pyarrow.csv.CSVWriter(self._sink, self._schema)
        elif self.suffix == ".parquet":
            self._writer = pyarrow.parquet.ParquetWriter(self._sink, self._schema)
        else:
            self._writer = pa.ipc.new_file(self._sink, self._schema)


def _plain(schema: pa.Schema) -> pa.Schema:
    """Dictionary columns as the text that a CSV file holds."""
    import pyarrow as pa

    fields = [
        pa.field(field.name, field.type.value_type if pa.types.is_dictionary(field.type) else field.type)
        for field in schema
    ]
    return pa.schema(fields)
