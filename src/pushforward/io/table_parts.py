"""A table in parts that can be read by themselves, so that several machines can share them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from pushforward.errors import ConfigError, StorageError
from pushforward.io.files import plain_errors
from pushforward.io.input_file import TextFormat, unchanged
from pushforward.io.table_source import TableSource
from pushforward.io.tables import chunks_of, in_chunks, whole_numbers
from pushforward.numerics.checks import check_integer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["PartedTable", "TablePart"]


class TablePart(NamedTuple):
    """A part of a table: a file, or row groups of a Parquet file.

    Attributes:
        file: index of the file in the order of their paths.
        first: the first row group, of a Parquet file.
        end: the row group after the last one; 0 for a whole file.

    Example:
        >>> TablePart(file=3)
        TablePart(file=3, first=0, end=0)
    """

    file: int
    first: int = 0
    end: int = 0


class PartedTable:
    """A file or folder as a list of parts. One after the other they are the table of :func:`~pushforward.io.stream_table`.

    Args:
        path: the file, folder or URI.
        format: as for :func:`~pushforward.io.read_table`.
        encoding: as for :func:`~pushforward.io.read_table`.
        delimiter: as for :func:`~pushforward.io.read_table`.
        decimal: as for :func:`~pushforward.io.read_table`.

    Attributes:
        decimal: the decimal point of numbers in text.

    Raises:
        StorageError: if it cannot be read, or is a pipe.

    Example:
        >>> import pathlib, tempfile, pyarrow as pa, pyarrow.parquet as pq
        >>> path = pathlib.Path(tempfile.mkdtemp(), "t.parquet")
        >>> pq.write_table(pa.table({"a": range(10)}), path, row_group_size=2)
        >>> table = PartedTable(path)
        >>> [sum(chunk.num_rows for chunk in table.read(part, rows=3)) for part in table.parts(rows=4)]
        [4, 4, 2]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        format: str | None = None,
        encoding: str = "utf-8",
        delimiter: str | None = None,
        decimal: str = ".",
    ) -> None:
        self.decimal = decimal
        self._source = TableSource.at(path, None, format, TextFormat(encoding, delimiter, decimal), None)
        if self._source.pipe is not None or self._source.owner is not None:
            raise StorageError(f"{self._source.name} can be read only once: parts need a file, a folder or a URI.")
        self._dataset: Any = None
        self._fragments: dict[str, Any] = {}

    def parts(self, rows: int) -> list[TablePart]:
        """The parts, in order: row groups of Parquet files with at most ``rows`` rows, but at least one; else whole files.

        Parquet files without rows are no part, except where all are: the first one is then the only part.

        Raises:
            ConfigError: for a number of rows that is not positive.
        """
        check_integer("rows", rows)
        with plain_errors(self._source.name):
            if self._source.format != "parquet":
                return [TablePart(k) for k in range(len(self._source.files))]
            found = []
            for number, fragment in enumerate(self._parquet()):
                first, count = 0, 0
                for group in range(fragment.metadata.num_row_groups):
                    more = fragment.metadata.row_group(group).num_rows
                    if count and count + more > rows:
                        found.append(TablePart(number, first, group))
                        first, count = group, 0
                    count += more
                if count:
                    found.append(TablePart(number, first, fragment.metadata.num_row_groups))
            return found or [TablePart(0)]

    def state(self) -> list[list[Any]]:
        """What differs after something else wrote to a file, or replaced it, as JSON values: the name, size and time of each."""
        return [[file.path, *map(str, file.state()[1:])] for file in self._source.inputs]

    def read(
        self, part: TablePart, rows: int, types: Mapping[str, pa.DataType] | None = None, *, empty: bool = False
    ) -> Iterator[pa.Table]:
        """The rows of a part in chunks of ``rows`` rows, in constant memory.

        Args:
            part: one of :meth:`parts`.
            rows: number of rows in a chunk.
            types: as for :func:`~pushforward.io.stream_table`.
            empty: whether a part of a CSV, TSV, Parquet or Arrow table may have no rows: it is then one chunk without rows.

        Raises:
            ConfigError: for a number of rows that is not positive, or a file or row groups that the table does not have.
            InputError: if the columns differ from those of the first file.
            SchemaError, StorageError: as for :func:`~pushforward.io.stream_table`.
        """
        check_integer("rows", rows)
        check_integer("part.file", part.file, 0, most=len(self._source.files) - 1)
        source = dataclasses.replace(self._source, files=[self._source.files[part.file]])
        with unchanged(source.inputs), plain_errors(source.name):
            parquet = source.format == "parquet"
            chunks = (
                self._read_groups(part, rows)
                if parquet
                else chunks_of(source, rows, types or {}, self._source.inputs, empty=empty)
            )
            yield from in_chunks(map(source.checked, chunks), rows, empty)

    def integer_columns(self, types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
        """The columns of float64 in which all cells of the files of text are integers, int64 or uint64; see ``stream_table(integers=True)``."""
        with unchanged(self._source.inputs), plain_errors(self._source.name):
            return whole_numbers(self._source, types)

    def _parquet(self) -> list[Any]:
        """The files of Parquet, in the order of the source."""
        if self._dataset is None:
            self._dataset = self._source.dataset()
            self._fragments = {fragment.path: fragment for fragment in self._dataset.get_fragments()}
        return [self._fragments[file.path] for file in self._source.inputs]

    def _read_groups(self, part: TablePart, rows: int) -> Iterator[pa.Table]:
        import pyarrow as pa

        fragment = self._parquet()[part.file]
        groups = fragment.metadata.num_row_groups
        if not 0 <= part.first <= (end := part.end or groups) <= groups:
            raise ConfigError(f"{part} is no part of a file with {groups} row groups: take one of parts(rows).")
        fragment = fragment.subset(row_group_ids=list(range(part.first, end)))
        scan = {"batch_size": rows, "batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
        yield self._dataset.schema.empty_table()
        with self._source.scanning(self._dataset, [fragment]):
            for batch in fragment.to_batches(schema=self._dataset.schema, **scan):
                yield pa.Table.from_batches([batch])
