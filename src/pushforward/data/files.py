"""Tables in files: CSV, TSV, Parquet, Arrow, NPY and NPZ, whole or in chunks of constant memory."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.delimited import read_delimited, stream_delimited
from pushforward.data.tables import as_table
from pushforward.errors import ConfigError, InputError, PushforwardError, SchemaError, StorageError
from pushforward.numerics.checks import check_integer

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["file_format", "plain_errors", "read_table", "stream_table"]

_FORMATS = {
    ".csv": "csv",
    ".csv.gz": "csv",
    ".tsv": "tsv",
    ".tsv.gz": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".npy": "npy",
    ".npz": "npz",
}
_DELIMITERS = {"csv": ",", "tsv": "\t"}


def file_format(path: str | os.PathLike[str]) -> str:
    """Which format a file's name asks for: "csv", "tsv", "parquet", "arrow", "npy" or "npz".

    Raises:
        StorageError: for any other ending.
    """
    name = Path(path).name.lower()
    for ending, kind in _FORMATS.items():
        if name.endswith(ending):
            return kind
    raise StorageError(f"{path} ends in none of {', '.join(_FORMATS)}, so its format is unknown.")


def read_table(path: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """A table from a file, whole.

    In CSV and TSV the first line names the columns; types are recognized from all rows (integers, numbers, true/false,
    dates, timestamps, else text). An empty cell is missing; in a column of numbers so are NA, NaN, null, None and ?.
    Numbers with leading zeros are text, as postal codes are. A blank line is no row.

    Args:
        path: of the file; its ending (.csv, .csv.gz, .tsv, .tsv.gz, .parquet, .arrow, .feather, .npy, .npz) is its
            format. Of an .npz file the array "X" is read, or the only one.
        columns: names of the columns to read; all by default.

    Raises:
        StorageError: if the file is absent, empty, damaged, or of unknown format.
        InputError: if its content is no table; SchemaError, naming it, for a column that is absent.
    """
    path, kind = _checked(path, columns)
    with plain_errors(path):
        if kind in _DELIMITERS:
            return read_delimited(path, _DELIMITERS[kind], columns, {})
        if kind in ("npy", "npz"):
            return _chosen(path, as_table(_load_array(path, kind)), columns)
        import pyarrow as pa

        return _not_empty(path, pa.concat_tables(list(_arrow_chunks(path, kind, 1 << 20, columns))))


def stream_table(
    path: str | os.PathLike[str],
    rows: int = 65_536,
    *,
    columns: Sequence[str] | None = None,
    types: Mapping[str, pa.DataType] | None = None,
) -> Iterator[pa.Table]:
    """The table of :func:`read_table` in chunks of ``rows`` rows (the last may be shorter), in constant memory.

    All chunks have the same column types. For that a text file is read twice; an error in its last line is met before
    the first chunk. An .npz file is compressed as a whole and is read whole.

    Args:
        path: as for :func:`read_table`.
        rows: in a chunk.
        columns: as for :func:`read_table`.
        types: for text files, what is known of columns, as :meth:`Schema.pyarrow_types` gives: cells of a number
            column must be numbers or missing, cells of a string column stay text whatever they look like.

    Yields:
        Tables.

    Raises:
        SchemaError: for text in a number column, naming column, row and value; and as :func:`read_table`.
    """
    check_integer("rows", rows)
    path, kind = _checked(path, columns)
    return _stream(path, kind, rows, columns, types or {})


def _stream(
    path: Path, kind: str, rows: int, columns: Sequence[str] | None, types: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    if kind in ("npy", "npz"):
        with plain_errors(path):
            array = _load_array(path, kind)
            _chosen(path, as_table(array[:1]), columns)
        for start in range(0, len(array), rows):
            yield _chosen(path, as_table(array[start : start + rows]), columns)
        return
    if kind in _DELIMITERS:
        chunks = stream_delimited(path, _DELIMITERS[kind], columns, types)
    else:
        chunks = _arrow_chunks(path, kind, rows, columns)
    # The consumer's own errors never pass through here: a generator only raises what its own code raises.
    with plain_errors(path):
        yield from _rechunk(chunks, rows)


def _rechunk(chunks: Iterable[pa.Table], rows: int) -> Iterator[pa.Table]:
    """The same rows, in chunks of one size."""
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


def _checked(path: Any, columns: Sequence[str] | None) -> tuple[Path, str]:
    """The path and its format, after what can be said without opening the file."""
    if columns is not None and (isinstance(columns, str) or not columns or len(set(columns)) < len(columns)):
        raise ConfigError(f"columns must be a list of different names, at least one; got {columns!r}.")
    try:
        where = Path(path)
        status = where.stat()
    except TypeError:
        raise InputError(f"expected the path of a file; got {type(path).__name__}.") from None
    except FileNotFoundError:
        raise StorageError(f"there is no file {path}.") from None
    except (OSError, ValueError) as error:
        raise StorageError(f"{str(path)!r} cannot be read: {error}") from error
    if stat.S_ISDIR(status.st_mode):
        raise StorageError(f"{path} is a directory: name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise StorageError(f"{path} is not a regular file, and a table may be read twice: save it to a file first.")
    kind = file_format(where)
    if status.st_size == 0:
        raise StorageError(f"{path} is empty.")
    return where, kind


def _arrow_chunks(path: Path, kind: str, rows: int, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    import pyarrow as pa

    if kind == "parquet":
        import pyarrow.parquet as pq

        # A buffered stream: otherwise a whole row group of each column is held.
        with pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False) as file:
            _chosen(path, file.schema_arrow.empty_table(), columns)
            seen = False
            for batch in file.iter_batches(batch_size=rows, columns=None if columns is None else list(columns)):
                seen = True
                yield _chosen(path, pa.Table.from_batches([batch]), columns)
            if not seen:
                raise InputError(f"{path} holds no rows.")
        return
    with pa.memory_map(str(path)) as source:
        try:
            reader = pa.ipc.open_file(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches))
        except pa.ArrowInvalid:
            source.seek(0)
            batches = iter(pa.ipc.open_stream(source))
        seen = False
        for batch in batches:
            batch.validate(full=True)  # offsets come from the file; a bad one would read past the end
            seen = seen or batch.num_rows > 0
            yield _chosen(path, pa.Table.from_batches([batch]), columns)
        if not seen:
            raise InputError(f"{path} holds no rows.")


def _load_array(path: Path, kind: str) -> np.ndarray:
    if kind == "npy":
        array = np.lib.format.open_memmap(path, mode="r")
    else:
        with path.open("rb") as file:  # numpy leaves a file open that it opened and cannot read
            array = _from_archive(path, np.load(file, allow_pickle=False))
    if array.ndim and len(array) == 0:
        raise InputError(f"{path} holds no rows.")
    return array


def _from_archive(path: Path, loaded: Any) -> np.ndarray:
    if isinstance(loaded, np.ndarray):
        return loaded
    names = loaded.files
    if "X" not in names and len(names) != 1:
        raise InputError(f"{path} must hold an array named X, or one array; it holds {', '.join(names) or 'none'}.")
    return loaded["X" if "X" in names else names[0]]


def _chosen(path: Path, table: pa.Table, columns: Sequence[str] | None) -> pa.Table:
    table = as_table(table)
    if columns is None:
        return table
    for name in columns:
        if name not in table.column_names:
            raise SchemaError(f"{path} has no column {name!r}; it has {', '.join(map(repr, table.column_names[:10]))}.")
    return table.select(list(columns))


def _not_empty(path: Path, table: pa.Table) -> pa.Table:
    if table.num_rows == 0:
        raise InputError(f"{path} holds no rows.")
    return table


@contextmanager
def plain_errors(path: Path) -> Iterator[None]:
    """What readers raise for damaged files, in our words; our own errors pass."""
    try:
        yield
    except PushforwardError:
        raise
    except Exception as error:  # damaged bytes make readers raise anything, and it all means the same
        text = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
        if "Object arrays" in text or "Python objects" in text:
            raise InputError(f"{path} holds Python objects, which are never loaded: save numbers or text.") from None
        if "pickled" in text:  # numpy's words for bytes that it does not know
            text = "these are not numpy's bytes."
        raise StorageError(f"{path} is damaged or not what its name says: {text}") from error
