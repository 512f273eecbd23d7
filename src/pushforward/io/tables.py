"""Tables from files and folders: CSV, TSV, JSON Lines, Parquet, Arrow, NPY and NPZ, whole or in chunks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward.data.tables import as_table
from pushforward.errors import ConfigError, InputError, SchemaError, StorageError
from pushforward.io.csv import check_delimited, read_delimited, stream_delimited
from pushforward.io.files import FORMATS, existing_path, file_format, load_array, plain_errors
from pushforward.io.json_lines import infer_json, read_json, stream_json
from pushforward.numerics.checks import check_integer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_table", "stream_table"]

_DELIMITERS = {"csv": ",", "tsv": "\t"}


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole table from a file or a folder.

    In CSV and TSV the first line names the columns, and ``pyarrow.csv`` infers the type of each column from all rows:
    integer, true/false, date, time of day, timestamp, number, else text. An empty cell is missing. In a column of numbers
    NA, NaN, null, None and ? are missing too. A column in which a number has a leading zero is text, as postal codes are.
    A blank line is not a row. JSON Lines has one object in each line.

    A folder is one table: all its files, in sub-folders too, must have one format. A sub-folder named ``key=value`` adds
    the column "key" (Hive partitions). Files and folders whose names begin with "." or "_" are ignored.

    Args:
        path: the file or folder. The ending of a name (.csv, .tsv, .jsonl, each also with .gz; .parquet, .arrow,
            .feather, .npy, .npz) is its format. Of an .npz file the array "X" is read, or the only one.
        columns: names of the columns to read; all by default.

    Raises:
        StorageError: if the file is absent, empty, damaged, or of unknown format.
        InputError: if its content is not a table.
        SchemaError: for a column that is absent.
    """
    source = _Source.at(path, columns)
    with plain_errors(source.path):
        table = source.dataset().to_table(columns=source.columns) if source.format == "parquet" else _joined(source)
        if table.num_rows == 0:
            raise InputError(f"{path} has no rows.")
        return source.checked(table)


def stream_table(
    path: str | os.PathLike[str],
    rows: int = 65_536,
    *,
    columns: Sequence[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
) -> Iterator[pa.Table]:
    """Read the table of :func:`read_table` in chunks of ``rows`` rows, in constant memory. The last chunk may be shorter.

    All chunks have the same column types. CSV and TSV files are read twice: the first pass finds every cell that does not
    fit, so that an error in the last line is raised before the first chunk. An .npz file is read as a whole.

    Args:
        path: as for :func:`read_table`.
        rows: number of rows in a chunk.
        columns: as for :func:`read_table`.
        types: types of columns by name, as :meth:`Schema.pyarrow_types` gives them, for formats of text. In CSV and TSV
            every other column is text, because no type that the first rows suggest is certain to fit the last one.

    Yields:
        Tables.

    Raises:
        SchemaError: for a cell that does not fit the type of its column, with column, row and value. The other errors are
            those of :func:`read_table`.
    """
    check_integer("rows", rows)
    return _stream(_Source.at(path, columns), rows, types or {})


@dataclass(frozen=True)
class _Source:
    """The files of one table.

    Attributes:
        path: the file or folder that the user named.
        format: the format of all files, a value of :data:`~pushforward.io.files.FORMATS`.
        files: the files in the order of their paths, each with the columns that its folders ``key=value`` add.
        columns: names of the columns to read; None for all.
    """

    path: Path
    format: str
    files: Sequence[tuple[Path, Mapping[str, Any]]]
    columns: list[str] | None

    @classmethod
    def at(cls, path: Any, columns: Sequence[str] | None) -> _Source:
        """What is at a path, found without reading the content of a file."""
        if columns is not None and (isinstance(columns, str) or not columns or len(set(columns)) < len(columns)):
            raise ConfigError(f"columns must be a list of different names, at least one; got {columns!r}.")
        where = existing_path(path)
        chosen = None if columns is None else list(columns)
        if not where.is_dir():
            return cls(where, file_format(where), [(where, {})], chosen)
        files = [file for file in sorted(where.rglob("*")) if _is_table(file, where)]
        formats = {file_format(file) for file in files}
        if len(formats) != 1 or formats & {"npy", "npz"}:
            raise StorageError(
                f"the files in the folder {path} must be tables of one format (.csv, .tsv, .jsonl, .parquet, .arrow); it has "
                f"{', '.join(sorted(formats)) or 'no table'}."
            )
        return cls(where, formats.pop(), _with_partition_keys(files, where), chosen)

    def dataset(self) -> Any:
        """The Parquet files as a ``pyarrow.dataset``."""
        import pyarrow as pa
        from pyarrow import dataset

        # A buffered stream, because pyarrow otherwise keeps a whole row group of each column.
        scan = dataset.ParquetFragmentScanOptions(use_buffered_stream=True, buffer_size=1 << 20, pre_buffer=False)
        options: dict[str, Any] = {"format": dataset.ParquetFileFormat(default_fragment_scan_options=scan)}
        if self.path.is_dir():
            options |= {"partitioning": "hive", "partition_base_dir": str(self.path)}
        try:
            found = dataset.dataset([str(file) for file, _ in self.files], **options)
        except pa.ArrowInvalid as error:
            if "duplicate field names" in str(error):
                raise InputError(
                    f"{self.path} has more than one column of the same name: rename or drop one."
                ) from None
            raise
        self.checked(found.schema.empty_table())
        return found

    def tables(self, read: Callable[[Path, list[str] | None], Iterable[pa.Table]]) -> Iterator[pa.Table]:
        """The tables that ``read(file, columns)`` gives for each file, with the columns that its folders add."""
        import pyarrow as pa

        for file, keys in self.files:
            columns = None if self.columns is None else [name for name in self.columns if name not in keys]
            for table in read(file, columns):
                for name, value in keys.items():
                    if name not in table.column_names:
                        kind = pa.int32() if isinstance(value, int) else pa.string()
                        table = table.append_column(name, pa.repeat(pa.scalar(value, kind), len(table)))
                yield table

    def checked(self, table: pa.Table) -> pa.Table:
        """The chosen columns of a table that can be used."""
        table = as_table(table)
        if self.columns is None:
            return table
        for name in self.columns:
            if name not in table.column_names:
                names = ", ".join(map(repr, table.column_names[:10]))
                raise SchemaError(f"{self.path} has no column {name!r}; it has {names}.")
        return table.select(self.columns)


def _is_table(file: Path, folder: Path) -> bool:
    hidden = any(part.startswith((".", "_")) for part in file.relative_to(folder).parts)
    return not hidden and file.name.lower().endswith(tuple(FORMATS)) and file.is_file()


def _with_partition_keys(files: Sequence[Path], folder: Path) -> list[tuple[Path, Mapping[str, Any]]]:
    from pyarrow import dataset, fs

    hive = dataset.FileSystemFactoryOptions(
        partition_base_dir=str(folder), partitioning=dataset.HivePartitioning.discover()
    )
    names = [str(file) for file in files]
    # No file is opened here, so the format is not used.
    factory = dataset.FileSystemDatasetFactory(fs.LocalFileSystem(), names, dataset.ParquetFileFormat(), hive)
    found = factory.finish(factory.inspect(fragments=0)).get_fragments()
    return [(Path(part.path), dataset.get_partition_keys(part.partition_expression)) for part in found]


def _joined(source: _Source) -> pa.Table:
    """All rows of a format that is read file by file."""
    import pyarrow as pa

    def read(file: Path, columns: list[str] | None) -> Iterable[pa.Table]:
        if source.format in _DELIMITERS:
            return [read_delimited(file, _DELIMITERS[source.format], columns)]
        if source.format == "arrow":
            return _arrow_batches(file, columns)
        return [read_json(file) if source.format == "jsonl" else as_table(load_array(file))]

    tables = [as_table(table) for table in source.tables(read)]
    try:
        return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})
    except pa.ArrowTypeError as error:
        raise InputError(f"a column has different types in the files of {source.path}: {error}") from None


def _stream(source: _Source, rows: int, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    # The errors of the caller do not pass through here: a generator raises only what its own code raises.
    with plain_errors(source.path):
        if source.format in _DELIMITERS:
            chunks = _delimited_chunks(source, types)
        elif source.format == "jsonl":
            chunks = _json_chunks(source, types)
        elif source.format == "parquet":
            chunks = _parquet_chunks(source, rows)
        elif source.format == "arrow":
            chunks = source.tables(_arrow_batches)
        else:
            array = load_array(source.path)
            chunks = (as_table(array[start : start + rows]) for start in range(0, len(array), rows))
        empty = True
        for chunk in _rechunk(map(source.checked, chunks), rows):
            empty = False
            yield chunk
        if empty:
            raise InputError(f"{source.path} has no rows.")


def _delimited_chunks(source: _Source, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    delimiter = _DELIMITERS[source.format]
    names: list[str] = []

    def check(file: Path, columns: list[str] | None) -> Iterable[pa.Table]:
        nonlocal names
        found = check_delimited(file, delimiter, columns, types)
        if names and set(found) != set(names):
            raise InputError(f"{file} has the columns {found[:10]}, and the first file of the folder has {names[:10]}.")
        names = names or found
        return []

    list(source.tables(check))
    return source.tables(lambda file, _: stream_delimited(file, delimiter, names, types))


def _json_chunks(source: _Source, types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    schema = infer_json(source.files[0][0], types)
    return source.tables(lambda file, _: stream_json(file, schema))


def _parquet_chunks(source: _Source, rows: int) -> Iterator[pa.Table]:
    import pyarrow as pa

    # No read-ahead and one thread, to keep memory constant.
    scan = {"batch_size": rows, "batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
    for batch in source.dataset().to_batches(columns=source.columns, **scan):
        yield pa.Table.from_batches([batch])


def _arrow_batches(file: Path, columns: Any = None) -> Iterator[pa.Table]:
    """The batches of an Arrow file or stream; ``pyarrow.dataset`` reads no streams and validates nothing."""
    import pyarrow as pa

    with pa.memory_map(str(file)) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        for batch in batches:
            batch.validate(full=True)  # a wrong offset in a damaged file would make a later step read foreign memory
            yield pa.Table.from_batches([batch])


def _rechunk(chunks: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows in chunks of one size."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    for chunk in chunks:
        while chunk.num_rows:
            part = chunk.slice(0, rows - count)
            waiting.append(part)
            count += part.num_rows
            chunk = chunk.slice(part.num_rows)
            if count == rows:
                yield pa.concat_tables(waiting)
                waiting, count = [], 0
    if waiting:
        yield pa.concat_tables(waiting)
