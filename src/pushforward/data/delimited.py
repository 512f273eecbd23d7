"""CSV and TSV in constant memory, with one type for each column from the first row to the last."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pushforward.data.text import convert, first_bad_number, narrow
from pushforward.errors import InputError, SchemaError, SchemaWarning, StorageError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["read_delimited", "stream_delimited"]

_BLOCK = 1 << 20  # bytes of text parsed at a time, and the longest row; the reader keeps some tens of them ahead


def stream_delimited(
    path: Path, delimiter: str, columns: Sequence[str] | None, types: Mapping[str, pa.DataType]
) -> Iterator[pa.Table]:
    """Tables of some thousand rows; their types fit the whole file, which is read once for that before.

    Args:
        path: of the file; compressed if it ends in .gz.
        delimiter: between cells.
        columns: to read; None for all.
        types: what is known of columns: a number type makes every cell that is no number an error, a string type keeps
            cells as they stand. Other columns are recognized.

    Raises:
        InputError: for a file that is no such table; with its row where there is one.
        SchemaError: for text in a number column, with column and row; for a column that is absent.
        StorageError: if the file cannot be read.
    """
    kinds = _kinds(path, _texts(path, delimiter, columns), types)
    for text in _texts(path, delimiter, columns, warn=False):
        yield _convert(text, kinds, types)


def read_delimited(
    path: Path, delimiter: str, columns: Sequence[str] | None, types: Mapping[str, pa.DataType]
) -> pa.Table:
    """The whole file; as :func:`stream_delimited`, parsed once."""
    import pyarrow as pa

    texts = list(_texts(path, delimiter, columns))
    kinds = _kinds(path, iter(texts), types)
    return pa.concat_tables([_convert(text, kinds, types) for text in texts])


def _kinds(path: Path, texts: Iterator[pa.Table], types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The type of each column that every cell fits."""
    import pyarrow as pa

    kinds: dict[str, pa.DataType] = {}
    row, last = 0, None
    for text in texts:
        for name in text.column_names:
            wanted = types.get(name)
            if wanted is not None and not _is_number(wanted):
                kinds[name] = pa.string()
                continue
            cells = text.column(name)
            kinds[name] = narrow(kinds.get(name, pa.null()), cells, codes=wanted is None)
            kind = kinds[name]
            if wanted is None or pa.types.is_null(kind) or pa.types.is_boolean(kind) or _is_number(kind):
                continue
            bad = first_bad_number(cells)
            if bad is None:
                raise SchemaError(f"column {name!r} of {path} mixes true/false with numbers: make it one of them.")
            where, what = bad
            raise SchemaError(
                f"column {name!r}, row {row + where} (counted from 0) of {path}: {what[:60]!r} is no number, and the "
                "fitted column holds only such."
            )
        row += text.num_rows
        last = text.slice(text.num_rows - 1)
    if last is None:
        raise InputError(f"{path} holds a header and no rows.")
    # An open quotation mark swallows all that follows it into one cell of the last row.
    if any("\n" in column[0].as_py() for column in last.columns) and _quotes(path) % 2:
        raise InputError(f"{path} has a quotation mark that is never closed.")
    return kinds


def _quotes(path: Path) -> int:
    count = 0
    with _input(path) as file:
        while block := file.read(_BLOCK):
            count += block.count(b'"')
    return count


def _input(path: Path) -> Any:
    import pyarrow as pa

    return pa.input_stream(str(path), compression="gzip" if path.name.lower().endswith(".gz") else None)


def _convert(text: pa.Table, kinds: Mapping[str, pa.DataType], types: Mapping[str, pa.DataType]) -> pa.Table:
    import pyarrow as pa

    names = text.column_names
    return pa.table([convert(text.column(n), kinds[n], codes=n not in types) for n in names], names=names)


def _is_number(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _texts(path: Path, delimiter: str, columns: Sequence[str] | None, warn: bool = True) -> Iterator[pa.Table]:
    """Blocks of the file with every cell as text."""
    import pyarrow as pa
    import pyarrow.csv

    with _plain_errors(path):
        with path.open("rb") as file:
            if file.read(2) in (b"\xff\xfe", b"\xfe\xff"):  # a UTF-16 byte order mark
                raise InputError(f"{path} is not UTF-8 text: save it as UTF-8.")
        with _open(path, delimiter, None) as reader:
            names = reader.schema.names
        _check_header(path, names, delimiter, columns)
        if warn and all(name.replace(".", "").replace("-", "").isdecimal() for name in names):
            warnings.warn(
                f"the first line of {path} holds only numbers and was taken as column names: add a header if none.",
                SchemaWarning,
                stacklevel=2,
            )
        chosen = list(names if columns is None else columns)
        options = pyarrow.csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            include_columns=chosen,
            strings_can_be_null=False,
            quoted_strings_can_be_null=False,
        )
        with _open(path, delimiter, options) as reader:
            for batch in reader:
                if batch.num_rows:
                    yield pa.Table.from_batches([batch])


def _open(path: Path, delimiter: str, options: Any) -> Any:
    import pyarrow.csv

    return pyarrow.csv.open_csv(
        _input(path),
        # One thread: the row numbers of errors are known only then, and it is no slower.
        read_options=pyarrow.csv.ReadOptions(block_size=_BLOCK, use_threads=False),
        parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
        convert_options=options,
    )


def _check_header(path: Path, names: list[str], delimiter: str, columns: Sequence[str] | None) -> None:
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"{path} has more than one column named {twice!r}: rename or drop one.")
    absent = [name for name in columns or () if name not in names]
    if absent:
        raise SchemaError(f"{path} has no column {absent[0]!r}; it has {', '.join(map(repr, names[:10]))}.")
    if len(names) == 1 and any(mark in names[0] for mark in ";\t,"):
        raise InputError(
            f"{path} has one column, {names[0][:60]!r}: its cells seem to be separated by something other than "
            f"{delimiter!r}; use .csv for commas and .tsv for tabs."
        )


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Arrow's errors in our words."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except pa.ArrowInvalid as error:
        raise InputError(_explain(path, str(error))) from None
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be read: {error}") from error


def _explain(path: Path, message: str) -> str:
    ragged = re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message)
    if ragged:
        row, expected, got = ragged.groups()
        return (
            f"{path}, row {row} (the header is row 1, blank lines not counted), has {got} cells where the header has "
            f"{expected}."
        )
    if "UTF8" in message or "UTF-8" in message:
        return f"{path} is not UTF-8 text: save it as UTF-8."
    if "Empty CSV" in message or "cannot infer number of columns" in message:
        return f"{path} holds no table: a line of column names and at least one row are needed."
    if "straddling" in message:
        return f"{path} has a row of more than {_BLOCK >> 20} MB, or a quotation mark that is never closed."
    return f"{path} is not a table that can be read: {message.splitlines()[0][:200]}"
