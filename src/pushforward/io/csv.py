"""CSV and TSV files, read by ``pyarrow.csv``.

The type of each column is decided here, once for the whole file; ``data/column.py`` then decides whether it is numeric, integer, boolean or categorical.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pushforward.data.arrow import beyond_int64, compute
from pushforward.data.cells import times_of_day
from pushforward.data.schema import present_columns
from pushforward.data.text import MISSING_WORDS
from pushforward.errors import (
    InputError,
    PushforwardError,
    SchemaError,
    SchemaWarning,
    StorageError,
    collected,
    warn_caller,
)
from pushforward.io.atomic import reason
from pushforward.io.input_file import InputFile, not_text
from pushforward.io.pipe import Pipe, interruptible

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["check_delimited", "column_names", "integer_columns", "read_delimited", "stream_delimited", "stream_pipe"]

TextSource = InputFile | Pipe

_BLOCK = 1 << 20  # bytes that are parsed at a time, and the length of the longest row
# A number with a leading zero or a hexadecimal prefix is a code, such as a postal code or an identifier.
_CODE = r"^\s*[+-]?0[0-9xX]"
# Integers that int64 has, and that uint64 has.
_INTEGER = r"\A[ \t]*-?([0-9]{1,18}|[1-8][0-9]{18})[ \t]*\z"
_LARGEST = str(2**64 - 1)
_BELOW = [f"{_LARGEST[:i]}[0-{int(digit) - 1}][0-9]{{{19 - i}}}" for i, digit in enumerate(_LARGEST) if digit > "0"]
_NATURAL = rf"\A[ \t]*([0-9]{{1,19}}|{'|'.join(_BELOW)}|{_LARGEST})[ \t]*\z"
_QUOTED = re.compile(r'"[^"]*"')
_NO_COLUMNS = "cannot infer number of columns"
_OTHER_KINDS = {
    b"\x1f\x8b": ("compressed by gzip", "let its name end in .gz, as in table.csv.gz"),
    b"PK\x03\x04": ("a zip file or a workbook", "unpack it, or save the sheet as CSV"),
    b"PAR1": (
        "a Parquet file",
        "let its name end in .parquet, or name the format (format=, on the command line --format)",
    ),
}
_SEPARATORS = (",", ";", "\t", "|")
_SHELL = {"\t": "tab"}
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")


def read_delimited(file: TextSource, columns: Sequence[str] | None) -> pa.Table:
    """Read a whole file. ``pyarrow.csv`` infers the type of each column from all of its rows.

    A column of numbers in which a cell has a leading zero is text.

    Args:
        file: the file.
        columns: names of the columns to read; None for all.

    Raises:
        InputError: if the file is not a table, with the row where that is known.
        SchemaError: for a column that is absent.
        StorageError: if the file cannot be read.
    """
    import pyarrow as pa

    with _plain_errors(file):
        names = column_names(file, columns)
        table = _csv("read_csv", file, names)
        numbers = [field.name for field in table.schema if _is_number(field.type)]
        if codes := _columns_of_codes(file, numbers):
            table = _csv("read_csv", file, names, dict.fromkeys(codes, pa.string()))
        large = [f.name for f in table.schema if pa.types.is_floating(f.type) and beyond_int64(table[f.name])]
        if whole := {name: kind for name, kind in integer_columns([file], large).items() if kind == pa.uint64()}:
            table = _csv("read_csv", file, names, dict.fromkeys(codes, pa.string()) | whole)
        if any(pa.types.is_binary(kind) for kind in table.schema.types):
            raise InputError(not_text(file))
        _check_end(file, table)
        return _with_times(_finished(table))


def check_delimited(
    file: TextSource, columns: Sequence[str] | None, types: Mapping[str, pa.DataType], empty: bool = False
) -> list[str]:
    """Read a file once in constant memory, to find what is wrong with it before its rows are used.

    Args:
        file: the file.
        columns: names of the columns to read; None for all.
        types: the types of columns, by name. Every cell of such a column must be readable as that type, or missing.
            Columns that are not named are text.
        empty: whether the file may have no rows.

    Returns:
        The names of the columns that :func:`stream_delimited` will yield.

    Raises:
        InputError: if the file is not a table, with the row where that is known.
        SchemaError: for a cell that does not fit the type of its column, and for a column that is absent.
        StorageError: if the file cannot be read.
    """
    with _plain_errors(file):
        names = column_names(file, columns)
        last = None
        for batch in _batches(file, names, types):
            last = batch
        if not (empty and last is None):
            _check_end(file, last)
        return names


def integer_columns(files: Sequence[TextSource], names: Sequence[str]) -> dict[str, pa.DataType]:
    """Those of the columns that all files have, in which every cell is an integer or missing, and some are not missing: int64 or uint64."""
    import pyarrow as pa

    pc = compute()
    found, kinds = dict.fromkeys(names, False), {name: {pa.int64(), pa.uint64()} for name in names}
    for file in files:
        with collected(SchemaWarning):  # the pass that follows warns
            present = column_names(file, None)
        found = {name: some for name, some in found.items() if name in present}
        left = list(found)
        with _plain_errors(file):
            for batch in _csv("open_csv", file, left, dict.fromkeys(left, pa.string())) if left else ():
                for name in list(found):
                    cells = batch[name]
                    absent = pc.fill_null(
                        pc.is_in(pc.utf8_trim_whitespace(cells), value_set=pa.array(["", *MISSING_WORDS])), True
                    )
                    for kind, form in ((pa.int64(), _INTEGER), (pa.uint64(), _NATURAL)):
                        if kind not in kinds[name]:
                            continue
                        whole = pc.match_substring_regex(cells, form)
                        if not pc.all(pc.or_(pc.fill_null(whole, True), absent)).as_py():
                            kinds[name].discard(kind)
                    if not kinds[name]:
                        del found[name]
                    elif not pc.all(absent).as_py():
                        found[name] = True
                if not found:
                    break
    return {name: pa.int64() if pa.int64() in kinds[name] else pa.uint64() for name, some in found.items() if some}


def stream_delimited(file: TextSource, names: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[pa.Table]:
    """Tables of a few thousand rows of a file that :func:`check_delimited` accepted; the first one has no rows."""
    import pyarrow as pa

    with _plain_errors(file):
        yield _no_rows(names, types)
        for batch in _batches(file, names, types):
            yield _finished(pa.Table.from_batches([batch]))


def stream_pipe(pipe: Pipe, types: Mapping[str, pa.DataType], empty: bool = False) -> Iterator[pa.Table]:
    """Tables of a few thousand rows of a stream that can be read once, which has some unless ``empty``; the first one has no rows.

    An error in a row is raised when that row is read; :func:`check_delimited` finds it before the first row.

    Raises:
        InputError, SchemaError, StorageError: see :func:`check_delimited`.
    """
    import pyarrow as pa

    with _plain_errors(pipe):
        names, last = column_names(pipe, None), None
        yield _no_rows(names, types)
        for last in interruptible(_batches(pipe, names, types)):
            yield _finished(pa.Table.from_batches([last]))
        if not (empty and last is None):
            _check_end(pipe, last)


def _batches(file: TextSource, names: Sequence[str], types: Mapping[str, pa.DataType]) -> Iterator[Any]:
    import pyarrow as pa

    types = {name: types.get(name, pa.string()) for name in names}
    yield from (batch for batch in _csv("open_csv", file, names, types) if batch.num_rows)


def _no_rows(names: Sequence[str], types: Mapping[str, pa.DataType]) -> pa.Table:
    import pyarrow as pa

    return pa.schema([(name, types.get(name, pa.string())) for name in names]).empty_table()


def _csv(function: str, file: TextSource, names: Sequence[str] | None = None, types: Any = None) -> Any:
    """Call ``pyarrow.csv.read_csv`` or ``open_csv`` for some columns, with the types that are known of them.

    Without names it is called for the first lines, which a pipe has in memory.
    """
    import pyarrow as pa
    from pyarrow import csv

    def spaced(words: Sequence[str]) -> list[str]:
        return [*words, *(" " + word for word in words)]  # some programs write a space after a comma

    blank = [" " * width for width in range(2, 9)] + ["\t"]

    def call(stream: Any) -> Any:
        return getattr(csv, function)(
            stream,
            # pyarrow reports the row of an error only if it reads with one thread.
            read_options=csv.ReadOptions(block_size=_BLOCK, use_threads=False),
            parse_options=csv.ParseOptions(delimiter=file.delimiter, newlines_in_values=True),
            convert_options=csv.ConvertOptions(
                include_columns=names,
                decimal_point=file.text.decimal,
                column_types=types,
                null_values=spaced(MISSING_WORDS) + blank,
                true_values=spaced(_TRUE),
                false_values=spaced(_FALSE),
            ),
        )

    try:
        return call(file.open_start() if names is None else file.open_text())
    except pa.ArrowInvalid as error:
        header = _unended_header(file) if _NO_COLUMNS in str(error) else b""
        if not header:
            raise
        return call(pa.BufferReader(header + b"\n"))


def _unended_header(file: TextSource) -> bytes:
    """The content of a file without a line end after its header, which pyarrow does not read; empty if it is longer or blank."""
    with file.open_start() as stream:
        start = stream.read(_BLOCK)
        return b"" if stream.read(1) or not start.strip(b"\xef\xbb\xbf \t\r\n") else start


def column_names(file: TextSource, columns: Sequence[str] | None) -> list[str]:
    """The names of the columns to read, after a check of the header."""
    with _plain_errors(file):
        with file.open_start() as stream:
            start = stream.read(_BLOCK)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):  # the byte order mark of UTF-16
            raise InputError(not_text(file))
        for magic, (kind, advice) in _OTHER_KINDS.items():
            if start.startswith(magic) and b"\0" in start[:200]:  # a header of text may begin with the same letters
                raise InputError(f"{file} is {kind} and not text: {advice}.")
        _check_separator(file, start)
        with _csv("open_csv", file) as reader:
            names = reader.schema.names
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise InputError(f"{file} has more than one column named {repeated[0]!r}: rename or drop one.")
    if all(name.replace(".", "").replace("-", "").isdecimal() for name in names):
        warn_caller(
            f"the first line of {file} contains only numbers and was read as the column names: add a header if it has none.",
            SchemaWarning,
        )
    absent = [name for name in columns or () if name not in names]
    if absent:
        raise SchemaError(f"{file} has no column {absent[0]!r}; it has {present_columns(absent[0], names)}.")
    return list(names if columns is None else columns)


def _check_separator(file: TextSource, start: bytes) -> None:
    """Say so where another character separates the names in the header, if the user named none."""
    if file.text.delimiter is not None:
        return
    header = start.lstrip(b"\xef\xbb\xbf\r\n ").partition(b"\n")[0].decode(errors="replace").rstrip("\r")
    counts = {mark: _QUOTED.sub("", header).count(mark) for mark in _SEPARATORS}
    own = counts.pop(file.delimiter)
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] <= own:
        return
    advice = f"delimiter={best!r}, on the command line --delimiter {_SHELL.get(best, repr(best))}"
    if own == 0:
        raise InputError(
            f"{file} has one column, {header if len(header) <= 60 else header[:57] + '...'!r}: its cells seem to be separated by {best!r} and not by "
            f"{file.delimiter!r}. Name the separator: {advice}."
        )
    warn_caller(
        f"the first line of {file} has {counts[best]} {best!r} and {own} {file.delimiter!r}: if its cells are "
        f"separated by {best!r}, name the separator: {advice}.",
        SchemaWarning,
    )


def _columns_of_codes(file: TextSource, names: Sequence[str]) -> set[str]:
    """Those of the columns in which the text of a cell is a code and not a number."""
    import pyarrow as pa

    pc = compute()
    codes: set[str] = set()
    if names:
        for batch in _csv("open_csv", file, names, dict.fromkeys(names, pa.string())):
            codes |= {n for n in names if n not in codes and pc.any(pc.match_substring_regex(batch[n], _CODE)).as_py()}
    return codes


def _check_end(file: TextSource, table: pa.Table | pa.RecordBatch | None) -> None:
    """Refuse a file without rows, and one in which an open quotation mark makes one cell of all that follows it."""
    if table is None or table.num_rows == 0:
        raise InputError(f"{file} has a header and no rows.")
    last = (column[-1].as_py() for column in table.columns)
    if any("\n" in cell for cell in last if isinstance(cell, str)) and file.count_quotes() % 2:
        raise InputError(
            f"{file} has a quotation mark that is never closed: close it, or write it twice if it is part of a cell."
        )


def _finished(table: pa.Table) -> pa.Table:
    """Null for the empty cells of text columns, and microseconds in all timestamps."""
    import pyarrow as pa

    pc = compute()
    for i, field in enumerate(table.schema):
        cells = table.column(i)
        if pa.types.is_string(field.type):
            table = table.set_column(i, field.name, pc.if_else(pc.equal(cells, ""), pa.scalar(None, field.type), cells))
        elif pa.types.is_timestamp(field.type):
            # float64 seconds are exact to a microsecond, and are not if they are computed from nanoseconds.
            table = table.set_column(i, field.name, pc.cast(cells, pa.timestamp("us", field.type.tz), safe=False))
    return table


def _with_times(table: pa.Table) -> pa.Table:
    """Text columns of times of day as such; pyarrow reads only those without fractions of a second."""
    import pyarrow as pa

    for i, field in enumerate(table.schema):
        if pa.types.is_string(field.type) and (cells := times_of_day(field.name, table.column(i))) is not None:
            table = table.set_column(i, field.name, cells)
    return table


def _is_number(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


@contextmanager
def _plain_errors(file: TextSource) -> Iterator[None]:
    """Report the errors of pyarrow in one sentence."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise InputError(not_text(file)) from None
    except pa.ArrowInvalid as error:
        raise _translated(file, str(error)) from None
    except OSError as error:
        if isinstance(error, PushforwardError):
            raise
        raise StorageError(f"cannot read {file}: {reason(error)}.") from error


def _advice(file: TextSource, columns: int, cells: int) -> str:
    """What to do where a row has more or fewer cells than the header."""
    with file.open_start() as stream:
        header = stream.read(_BLOCK).lstrip(b"\xef\xbb\xbf\r\n").partition(b"\n")[0].decode(errors="replace").strip()
    if columns == 1 or header.startswith(("#", "sep=")):
        return f"if the first line, {header[:60]!r}, does not have the column names, remove it"
    if file.count_quotes() % 2:
        return "close the quotation mark that is open, or write it twice if it is part of a cell"
    if cells < columns:
        return "give it all cells, which may be empty"
    return f"put a cell with {file.delimiter!r} in it into quotation marks"


def _translated(file: TextSource, message: str) -> InputError:
    if "UTF8" in message or "UTF-8" in message:
        return InputError(not_text(file))
    if found := re.search(
        r"column #(\d+): Row #(\d+): CSV conversion error to (\w+).*invalid value '(.*)'", message, re.S
    ):
        column, row, kind, cell = found.groups()
        with _csv("open_csv", file) as reader:
            name = reader.schema.names[int(column)]
        what = {"double": "a number", "time64": "a time of day"}.get(kind, f"of type {kind}")
        return SchemaError(
            f"column {name!r}, row {int(row) - 2} (counted from 0) of {file}: {cell[:60]!r} is not {what}. "
            + (
                "If commas are decimal points here, say so: decimal=',', on the command line --decimal ','."
                if kind == "double" and file.text.decimal == "." and re.fullmatch(r"\s*[+-]?\d+,\d+\s*", cell)
                else "Correct the cell, or leave it empty if its value is missing."
            )
        )
    if found := re.search(r"Row #(\d+): Expected (\d+) columns, got (\d+)", message):
        row, expected, got = map(int, found.groups())
        return InputError(
            f"row {row - 2} (counted from 0, without blank lines) of {file} has {got} cells and the header has {expected}: {_advice(file, expected, got)}."
        )
    if "Empty CSV" in message or _NO_COLUMNS in message:
        return InputError(f"{file} is not a table: it needs a line of column names and at least one row.")
    if "straddling" in message:
        return InputError(f"{file} has a row of more than {_BLOCK >> 20} MB, or a quotation mark that is never closed.")
    return InputError(f"cannot read {file} as a table: {message.splitlines()[0][:200]}")
