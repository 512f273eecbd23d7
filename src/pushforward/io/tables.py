"""Tables from files, folders, URIs and standard input: CSV, TSV, JSON Lines, Parquet, Arrow, NPY and NPZ, whole or in chunks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.arrow import compute
from pushforward.data.tables import as_table
from pushforward.errors import InputError
from pushforward.io.csv import (
    check_delimited,
    column_names,
    integer_columns,
    read_delimited,
    stream_delimited,
    stream_pipe,
)
from pushforward.io.files import load_array, plain_errors
from pushforward.io.input_file import InputFile, TextFormat, unchanged
from pushforward.io.json_lines import (
    infer_json,
    integer_keys,
    read_json,
    stream_json,
    stream_json_pipe,
    typed_instants,
)
from pushforward.io.table_source import TableSource
from pushforward.numerics.checks import check_integer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["chunks_of", "in_chunks", "read_table", "stream_table", "whole_numbers"]


def read_table(
    path: str | os.PathLike[str],
    columns: Sequence[str] | None = None,
    *,
    format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    decimal: str = ".",
    filesystem: Any = None,
) -> pa.Table:
    """Read a whole table from a file, a folder, a URI or standard input.

    In CSV and TSV the first line names the columns, and ``pyarrow.csv`` infers the type of each column from all rows:
    integer, true/false, date, time of day, timestamp, number, else text. An empty cell is missing. In a column of numbers
    NA, NaN, null, None and ? are missing too. A column in which a number has a leading zero is text, as postal codes are.
    A blank line is not a row. JSON Lines has one object in each line; a key that a row lacks is a missing cell, and text that is
    a date, an instant or a time of day in all rows is read as in CSV.

    A folder is one table: all its files with one of the endings below, in sub-folders and linked ones too, must have one format. A sub-folder named ``key=value`` adds
    the column "key" (Hive partitions). Files and folders whose names begin with "." or "_" are ignored. Columns of a later Parquet file
    that the first one lacks are left out with a warning.

    Args:
        path: the file or folder. The ending of a name (.csv, .tsv, .jsonl or .ndjson, each also with .gz or .zst; .parquet,
            .arrow, .feather, .npy, .npz) is its format. Of an .npz file the array "X" is read, or the only one.
            A URI such as s3://bucket/folder is opened by ``pyarrow.fs.FileSystem.from_uri``. "-" is standard input, which
            is copied to a temporary file, as a named pipe is; gzip and zstd are recognized.
        columns: names of the columns to read; all by default.
        format: csv, tsv, jsonl, parquet, arrow, npy or npz, where the name does not tell. Without it, Parquet, Arrow, NumPy
            and JSON Lines are recognized on standard input.
        encoding: of text, such as "latin-1" or "utf-16".
        delimiter: the character between the cells of CSV and TSV, where it is neither a comma nor a tab.
        decimal: the character before the fraction of a number in CSV and TSV, "." or ",".
        filesystem: a ``pyarrow.fs.FileSystem`` in which the path is, instead of the local one.

    Raises:
        StorageError: if the file is absent, empty, damaged, of unknown format, or changes while it is read.
        InputError: if its content is not a table.
        SchemaError: for a column that is absent.
        ConfigError: for a format, an encoding or a delimiter that does not exist.

    Example:
        >>> import pathlib, tempfile
        >>> path = pathlib.Path(tempfile.mkdtemp(), "t.txt")
        >>> _ = path.write_bytes("name;n{0}Åsa;1{0}".format(chr(10)).encode("latin-1"))
        >>> read_table(path, format="csv", encoding="latin-1", delimiter=";").to_pylist()
        [{'name': 'Åsa', 'n': 1}]
    """
    source = TableSource.at(path, columns, format, TextFormat(encoding, delimiter, decimal), filesystem)
    source = source.spooled()
    with unchanged(source.inputs), plain_errors(source.name):
        table = _parquet_table(source) if source.format == "parquet" else _joined(source)
        if table.num_rows == 0:
            raise InputError(f"{source.name} has no rows.")
        return source.checked(table)


def stream_table(
    path: str | os.PathLike[str],
    rows: int = 65_536,
    *,
    columns: Sequence[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
    format: str | None = None,
    encoding: str = "utf-8",
    delimiter: str | None = None,
    decimal: str = ".",
    filesystem: Any = None,
    empty: bool = False,
    integers: bool = False,
) -> Iterator[pa.Table]:
    """Read the table of :func:`read_table` in chunks of ``rows`` rows, in constant memory. The last chunk may be shorter.

    All chunks have the same column types. CSV and TSV files are read twice: the first pass finds every cell that does not
    fit, so that an error in the last line is raised before the first chunk. From standard input and named pipes text is
    read once, so such an error is raised after the chunks before it; Parquet and Arrow are copied to a temporary file. An
    .npz file is read as a whole.

    Args:
        path: as for :func:`read_table`.
        rows: number of rows in a chunk.
        columns: as for :func:`read_table`.
        types: types of columns by name, as :meth:`Schema.pyarrow_types` gives them, for formats of text. In CSV and TSV
            every other column is text, because no type that the first rows suggest is certain to fit the last one. In JSON
            Lines the columns are the keys of the first megabyte, and those of ``types`` that a later row has; dates, instants
            and times of day are text.
        format: as for :func:`read_table`.
        encoding: as for :func:`read_table`.
        delimiter: as for :func:`read_table`.
        decimal: as for :func:`read_table`.
        filesystem: as for :func:`read_table`.
        empty: whether a CSV, TSV, Parquet or Arrow table may have no rows: it is then one chunk without rows, instead of an
            error.
        integers: whether columns that are float64 by ``types`` are int64 or uint64 where all cells of the files are integers, so that
            identifiers keep all digits. Files of text are then read once more; standard input and pipes cannot be.

    Yields:
        Tables.

    Raises:
        SchemaError: for a cell that does not fit the type of its column, with column, row and value. The other errors are
            those of :func:`read_table`.

    Example:
        >>> import pathlib, tempfile
        >>> from pushforward.io import stream_table
        >>> path = pathlib.Path(tempfile.mkdtemp(), "rows.csv")
        >>> _ = path.write_text("a,b" + chr(10) + "1,x" + chr(10) + "2,y" + chr(10))
        >>> sum(part.num_rows for part in stream_table(path))
        2
    """
    check_integer("rows", rows)
    source = TableSource.at(path, columns, format, TextFormat(encoding, delimiter, decimal), filesystem)
    return _stream(source, rows, types or {}, empty, integers)


def _joined(source: TableSource) -> pa.Table:
    """All rows of a format that is read file by file."""
    import pyarrow as pa

    def read(file: InputFile, columns: list[str] | None) -> Iterable[pa.Table]:
        if source.format in ("csv", "tsv"):
            return [read_delimited(file, columns)]
        if source.format == "arrow":
            return _arrow_batches(file, columns)
        return [read_json(file) if source.format == "jsonl" else as_table(np.array(load_array(Path(file.path))))]

    tables = [as_table(table, index=True) for table in source.tables(read)]
    try:
        table = pa.concat_tables(_same_integers(tables), promote_options="permissive") if tables else pa.table({})
        if source.format == "jsonl":
            table = typed_instants(table, set(table.column_names) - source.keys)
        return table
    except pa.ArrowTypeError as error:
        raise InputError(f"a column has different types in the files of {source.name}: {error}") from None


def _same_integers(tables: list[pa.Table]) -> list[pa.Table]:
    """The tables with one type in columns that are uint64 in some: uint64, or float64 where others have negative or real numbers."""
    import pyarrow as pa

    large = {field.name for table in tables for field in table.schema if field.type == pa.uint64()}
    for name in large:
        columns = [table[name] for table in tables if name in table.column_names]
        kinds = {column.type for column in columns} - {pa.null()}
        if kinds == {pa.uint64()} or not all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in kinds):
            continue
        whole = all(pa.types.is_integer(kind) for kind in kinds)
        natural = whole and not any(
            compute().any(compute().less(column, 0)).as_py()
            for column in columns
            if pa.types.is_signed_integer(column.type)
        )
        kind = pa.uint64() if natural else pa.float64()
        tables = [
            table.set_column(table.column_names.index(name), name, table[name].cast(kind, safe=False))
            if name in table.column_names
            else table
            for table in tables
        ]
    return tables


def _stream(
    source: TableSource, rows: int, types: Mapping[str, pa.DataType], may_be_empty: bool, integers: bool
) -> Iterator[pa.Table]:  # fmt: skip

    # The errors of the caller do not pass through here: a generator raises only what its own code raises.
    with unchanged(source.inputs), plain_errors(source.name):
        if integers and source.pipe is None:
            types = {**types, **whole_numbers(source, types)}
        found = False
        for chunk in in_chunks(
            map(source.checked, chunks_of(source, rows, types, empty=may_be_empty)), rows, may_be_empty
        ):
            found = True
            yield chunk
        if not found:
            raise InputError(f"{source.name} has no rows.")


def whole_numbers(source: TableSource, types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The columns of float64 that have only integers, int64 or uint64, in files of text; none of a folder whose files have different columns."""
    import pyarrow as pa

    numbers = [name for name, kind in types.items() if kind == pa.float64()]
    if source.format == "jsonl":
        return integer_keys(source.inputs, _needed(source, numbers))
    return integer_columns(source.inputs, numbers) if source.format in ("csv", "tsv") else {}


def _needed(source: TableSource, names: Iterable[str]) -> list[str]:
    """Those of the columns that the rows themselves must have: not left out, and not added by folders."""
    return [name for name in names if name not in source.keys and (source.columns is None or name in source.columns)]


def chunks_of(
    source: TableSource,
    rows: int,
    types: Mapping[str, pa.DataType],
    files: Sequence[InputFile] | None = None,
    *,
    empty: bool = False,
) -> Iterable[pa.Table]:
    """Tables of any number of rows.

    Args:
        source: what to read.
        rows: the most rows of a table, in formats that can be read by rows.
        types: of columns, for formats of text.
        files: the files of the whole table, where the source is a part of it: the first one says what the columns are, and
            their order; in JSON Lines the others can add some. By default those of the source.
        empty: whether CSV and TSV files may have no rows. Their tables and those of Parquet and Arrow begin with one without rows.
    """
    if source.pipe is not None:
        return (
            stream_json_pipe(source.pipe, types, _needed(source, types))
            if source.format == "jsonl"
            else stream_pipe(source.pipe, types, empty)
        )
    if source.format in ("csv", "tsv"):
        return _delimited_chunks(source, types, files[0] if files else None, empty)
    if source.format == "jsonl":
        schema = infer_json(files or source.inputs, types, _needed(source, types))
        return source.tables(lambda file, _: stream_json(file, schema))
    if source.format == "parquet":
        return _parquet_chunks(source, rows)
    if source.format == "arrow":
        return source.tables(_arrow_batches)
    return _array_chunks(Path(source.inputs[0].path), rows)


def _delimited_chunks(
    source: TableSource, types: Mapping[str, pa.DataType], first: InputFile | None, empty: bool
) -> Iterator[pa.Table]:
    names = [] if first is None else column_names(first, None)

    def check(file: InputFile, columns: list[str] | None) -> Iterable[pa.Table]:
        nonlocal names
        found = check_delimited(file, columns, types, empty)
        if names and set(found) != set(names):
            raise InputError(
                f"{file} has the columns {found[:10]}, and the first file of the folder has {names[:10]}: the files of a folder need the same columns."
            )
        names = names or found
        return []

    list(source.tables(check))
    return source.tables(lambda file, _: stream_delimited(file, names, types))


def _parquet_table(source: TableSource) -> pa.Table:
    dataset = source.dataset()
    with source.scanning(dataset, list(dataset.get_fragments())):
        return dataset.to_table(columns=source.columns)


def _parquet_chunks(source: TableSource, rows: int) -> Iterator[pa.Table]:
    import pyarrow as pa

    # No read-ahead and one thread, to keep memory constant.
    scan = {"batch_size": rows, "batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
    dataset = source.dataset()
    yield dataset.schema.empty_table()
    with source.scanning(dataset, list(dataset.get_fragments())):
        for batch in dataset.to_batches(columns=source.columns, **scan):
            yield pa.Table.from_batches([batch])


def _arrow_batches(file: InputFile, columns: Any = None) -> Iterator[pa.Table]:
    """A table without rows and the batches of an Arrow file or stream; ``pyarrow.dataset`` reads no streams and validates nothing."""
    import pyarrow as pa

    with file.open_bytes() as source:  # not mapped to memory, where the system ends a process that reads a cut file
        try:
            reader = pa.ipc.open_file(source)
            schema, batches = reader.schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            reader = pa.ipc.open_stream(source)
            schema, batches = reader.schema, iter(reader)
        yield pa.Table.from_batches([], schema)
        for batch in batches:
            batch.validate(full=True)  # a wrong offset in a damaged file would make a later step read foreign memory
            yield pa.Table.from_batches([batch])


def _array_chunks(path: Path, rows: int) -> Iterator[pa.Table]:
    """The rows of an array. Those of an .npy file are read and not mapped, for the reason in :func:`_arrow_batches`."""
    array = load_array(path)
    if array.ndim == 0:
        as_table(np.array(array))  # raises what is wrong
    if not isinstance(array, np.memmap) or array.ndim not in (1, 2):
        for start in range(0, len(array), rows):
            yield as_table(array[start : start + rows])
        return
    shape, kind, offset, by_rows = array.shape, array.dtype, array.offset, array.flags.c_contiguous
    del array
    width = math.prod(shape[1:])
    with path.open("rb") as file:

        def read(first: int, count: int) -> np.ndarray:
            file.seek(offset + first * kind.itemsize)
            return np.fromfile(file, kind, count)

        for start in range(0, shape[0], rows):
            count = min(rows, shape[0] - start)
            if by_rows:
                part = read(start * width, count * width).reshape(count, *shape[1:])
            else:
                part = np.stack([read(column * shape[0] + start, count) for column in range(width)], axis=1)
            yield as_table(part)


def in_chunks(chunks: Iterable[pa.Table], rows: int, empty: bool = False) -> Iterator[pa.Table]:
    """The same rows in chunks of one size; with ``empty``, one chunk without rows if there are chunks and no rows."""
    import pyarrow as pa

    waiting: list[pa.Table] = []
    count = 0
    columns: pa.Schema | None = None
    for chunk in chunks:
        if columns is None:
            columns = chunk.schema
        elif chunk.schema != columns:
            first, other = ([str(field)[14:-1] for field in schema] for schema in (columns, chunk.schema))
            raise InputError(
                f"the files of a folder need the same columns of the same types: one has {[text for text in first if text not in other][:3]} where "
                f"another has {[text for text in other if text not in first][:3]}."
            )
        empty = empty and chunk.num_rows == 0
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
    elif empty and columns is not None:
        yield pa.Table.from_batches([], columns)
