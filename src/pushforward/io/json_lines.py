"""JSON Lines files, one object in each line, read by ``pyarrow.json``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pushforward.data.arrow import beyond_int64, compute
from pushforward.data.cells import times_of_day
from pushforward.data.schema import absent_columns
from pushforward.data.text import MISSING_WORDS
from pushforward.errors import InputError, SchemaError
from pushforward.io.input_file import InputFile, not_text
from pushforward.io.pipe import Pipe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["infer_json", "integer_keys", "read_json", "stream_json", "stream_json_pipe", "typed_instants"]

_BLOCK = 1 << 20  # bytes that are parsed at a time, and the length of the longest line
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}.*)?", re.ASCII)


def read_json(file: InputFile) -> pa.Table:
    """Read a whole file. ``pyarrow.json`` infers the type of each key from all rows; an absent key is a missing cell.

    Dates and instants are text, see :func:`typed_instants`.

    Raises:
        InputError: if the file is not JSON Lines.
        SchemaError: for a key with values of different types.
    """
    with _plain_errors(file):
        return _parsed(file.open_text)


def typed_instants(table: pa.Table, names: Collection[str]) -> pa.Table:
    """Make dates, instants and times of day of the columns of text among ``names`` that have nothing else, with the types that CSV gives.

    A column is one of times of day, of dates, of instants without a time zone, or of instants that all have one, which are then in UTC.
    """
    import pyarrow as pa

    pc = compute()
    kinds = [pa.date32(), *(pa.timestamp(unit, zone) for zone in (None, "UTC") for unit in ("us", "ns"))]
    for i, field in enumerate(table.schema):
        if field.name not in names or not pa.types.is_string(field.type):
            continue
        if (times := times_of_day(field.name, table.column(i))) is not None:
            table = table.set_column(i, field.name, times)
            continue
        text = pc.utf8_trim_whitespace(table.column(i))
        absent = pc.is_in(text, value_set=pa.array(MISSING_WORDS, text.type))
        text = pc.if_else(absent, pa.scalar(None, text.type), text)
        first = next((cell for chunk in text.chunks for cell in pc.drop_null(chunk).slice(0, 1)), None)
        if first is None or not _INSTANT.fullmatch(first.as_py()):
            continue
        for kind in kinds:
            try:
                cells = pc.cast(text, kind)
            except pa.ArrowInvalid:
                continue
            if pa.types.is_timestamp(kind):  # microseconds, as of CSV
                cells = pc.cast(cells, pa.timestamp("us", kind.tz), safe=False)
            table = table.set_column(i, field.name, cells)
            break
    return table


def infer_json(
    files: Sequence[InputFile | Pipe], types: Mapping[str, pa.DataType], names: Collection[str]
) -> pa.Schema:
    """The schema of the rows of some files, or of a pipe.

    Args:
        files: the files; the first rows of the first one say what the columns are.
        types: types that are known of columns, by name.
        names: columns that are searched for in all rows of all files if the first rows lack them. A pipe is not searched.
    """
    import pyarrow as pa

    known = _known_keys(files, {name: types[name] for name in names})
    return pa.schema([(name, _fitted(kind, types.get(name))) for name, kind in known.items()])


def _fitted(kind: pa.DataType, wanted: pa.DataType | None) -> pa.DataType:
    """The type in which a key is read: that of its values, unless they are all null or integers among real numbers."""
    import pyarrow as pa

    if pa.types.is_null(kind):  # JSON has no instants and no times of day: they are text
        return pa.string() if wanted is None or pa.types.is_temporal(wanted) else wanted
    return pa.float64() if wanted == pa.float64() and pa.types.is_integer(kind) else kind


def _known_keys(files: Sequence[InputFile | Pipe], types: Mapping[str, pa.DataType]) -> dict[str, pa.DataType]:
    """The types of the keys of the first rows, and of those keys in ``types`` that only later rows have."""
    import pyarrow as pa
    import pyarrow.json

    with _plain_errors(files[0]), pyarrow.json.open_json(files[0].open_start(), _options()) as reader:
        known = {field.name: _as_text(field.type) for field in reader.schema}
    known |= dict.fromkeys(
        _large_integers(files[0], [n for n, kind in known.items() if kind == pa.float64()]), pa.uint64()
    )
    # What is null at first can become text, a flag or a number, unless only numbers are expected.
    open_keys = {
        name
        for name, kind in types.items()
        if name not in known or (pa.types.is_null(known[name]) and kind != pa.float64())
    }
    for file in files:
        if isinstance(file, Pipe) or not open_keys:
            break
        with _plain_errors(file), file.open_text() as stream:
            for block in _complete_lines(stream):
                for field in pyarrow.json.read_json(pa.BufferReader(block), _options()).schema:
                    if field.name in open_keys:
                        known[field.name] = _as_text(field.type)
                        if not pa.types.is_null(field.type):
                            open_keys.remove(field.name)
                if not open_keys:
                    break
    return known


_LARGE = re.compile(rb"[:\s][0-9]{19,20}\s*[,}]")
"""An integer that may be too large for int64."""


def _large_integers(file: InputFile | Pipe, names: Sequence[str]) -> list[str]:
    """Those of the keys of real numbers whose values in the first rows are integers of uint64, where a real number would lose digits."""
    import pyarrow as pa
    import pyarrow.json

    if not names:
        return []
    with file.open_start() as stream:
        if not _LARGE.search(stream.read(_BLOCK)):
            return []
    found = []
    for name in names:
        options = pyarrow.json.ParseOptions(pa.schema([(name, pa.uint64())]), unexpected_field_behavior="ignore")
        try:
            with pyarrow.json.open_json(file.open_start(), _options(), options):
                found.append(name)
        except pa.ArrowInvalid:
            continue
    return found


_SEARCHED = 16
"""Keys among which those that are not whole are searched for; of more, one that is not makes all of them real numbers."""


def integer_keys(files: Sequence[InputFile], names: Sequence[str]) -> dict[str, pa.DataType]:
    """Those of the keys whose value is an integer, null or absent in every line, and an integer in the first with one: int64 or uint64."""
    import pyarrow as pa

    known = _known_keys(files, dict.fromkeys(names, pa.float64()))

    def whole(chosen: Sequence[str]) -> bool:
        schema = pa.schema([(name, known[name]) for name in chosen])
        try:
            for file in files:
                for _ in stream_json(file, schema, diagnose=False):
                    pass
        except (InputError, SchemaError):
            return False
        return True

    def search(chosen: list[str]) -> list[str]:
        """Halves, so that few keys that are not whole cost few readings."""
        if not chosen or whole(chosen):
            return chosen
        half = len(chosen) // 2
        return search(chosen[:half]) + search(chosen[half:]) if half else []

    found = [name for name in names if pa.types.is_integer(known.get(name, pa.null()))]
    chosen = search(found) if len(found) <= _SEARCHED or whole(found) else []
    return {name: known[name] for name in chosen}


def stream_json(file: InputFile | Pipe, schema: pa.Schema, diagnose: bool = True) -> Iterator[pa.Table]:
    """Read a file in constant memory, as tables of a schema that :func:`infer_json` found. Other keys are ignored.

    Without ``diagnose`` no damaged line is looked for after an error, which takes a second reading.
    """
    import pyarrow as pa
    import pyarrow.json

    with _plain_errors(file, diagnose):
        parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        with pyarrow.json.open_json(file.open_text(), _options(), parse) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield pa.Table.from_batches([batch]).select(schema.names)


def stream_json_pipe(pipe: Pipe, types: Mapping[str, pa.DataType], names: Collection[str]) -> Iterator[pa.Table]:
    """Read a stream that can be read once, in constant memory.

    Args:
        pipe: the stream.
        types: types that are known of columns, by name.
        names: columns that the rows must have. Of one that the first rows lack the cells are missing until a row has it.

    Raises:
        SchemaError: after the last row, for a column that no row had; or for one with values of different types.
    """
    import pyarrow as pa

    schema = infer_json([pipe], types, names)
    late = [] if pipe.starts_whole else [name for name in names if name not in schema.names]
    if not late:
        yield from stream_json(pipe, schema)
        return
    absent, seen = set(late), dict.fromkeys(schema.names)
    whole = pa.schema([*schema, *((name, _fitted(pa.null(), types[name])) for name in late)])
    with _plain_errors(pipe):
        for block in _complete_lines(pipe.open_text()):
            table = _parsed(lambda block=block: pa.BufferReader(block), schema)
            seen |= dict.fromkeys(table.column_names)
            absent.difference_update(table.column_names)
            yield pa.table([_cells(pipe, table, field) for field in whole], schema=whole)
    if absent:
        raise SchemaError(absent_columns([name for name in late if name in absent], list(seen)))


def _cells(pipe: Pipe, table: pa.Table, field: pa.Field) -> Any:
    """A column of a block in the type that all blocks have; only the types of keys that came late can differ."""
    import pyarrow as pa

    if field.name not in table.column_names:
        return pa.nulls(table.num_rows, field.type)
    column = table[field.name]
    try:
        return column.cast(field.type)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise SchemaError(
            f"column {field.name!r} of {pipe} has values of the type {column.type}, which cannot be read as {field.type}: "
            "correct them."
        ) from None


def _parsed(start: Callable[[], Any], schema: pa.Schema | None = None) -> pa.Table:
    """All rows of the stream that ``start()`` opens, with dates and instants as text.

    Args:
        start: opens the stream; it is called twice if there are dates or instants.
        schema: of the keys whose types are known, for a block; None for a whole file, which is read with threads.
    """
    import pyarrow as pa
    import pyarrow.json

    def read(fields: Sequence[pa.Field]) -> pa.Table:
        parse = pyarrow.json.ParseOptions(explicit_schema=pa.schema(fields) if fields else None)
        with start() as stream:
            return pyarrow.json.read_json(stream, None if schema is None else _options(), parse)

    fields = [] if schema is None else list(schema)
    table = read(fields)
    names = table.column_names
    texts = [field.with_type(kind) for field in table.schema if (kind := _as_text(field.type)) != field.type]
    if texts:
        table = read([*fields, *texts]).select(names)
    for field in table.schema if schema is None else ():
        if pa.types.is_floating(field.type) and beyond_int64(table[field.name]):
            try:
                table = read([*fields, *texts, large := field.with_type(pa.uint64())]).select(names)
            except pa.ArrowInvalid:  # numbers that are no integers
                continue
            texts.append(large)
    table.validate(full=True)  # pyarrow does not look at the bytes of a text
    return table


def _as_text(kind: pa.DataType) -> pa.DataType:
    """A type with text in place of the instants that ``pyarrow.json`` infers: it drops their time zones."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return pa.string()
    if pa.types.is_list(kind):
        return pa.list_(_as_text(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([(field.name, _as_text(field.type)) for field in kind.fields])
    return kind


def _complete_lines(stream: Any) -> Iterator[bytes]:
    """The content of a stream in blocks that end with a line, without those that are blank."""
    rest = b""
    while part := stream.read(_BLOCK):
        end = part.rfind(b"\n") + 1
        if not end and len(rest) < _BLOCK:
            rest += part
            continue
        block, rest = rest + part[: end or len(part)], part[end or len(part) :]
        if block.strip():
            yield block
    if rest.strip():
        yield rest


def _line_that_is_no_object(file: InputFile | Pipe) -> str:
    """What is wrong with the first line that is not one object with different keys; "" without any, or for a pipe, which is read once."""
    for number, line in _numbered_lines(file):
        if line is None:
            return f"line {number} is longer than {_BLOCK >> 20} MB"
        try:
            value = json.loads(line, object_pairs_hook=_Pairs)
        except ValueError as error:
            where = f" ({error.msg} at character {error.pos + 1})" if isinstance(error, json.JSONDecodeError) else ""
            return f"line {number} is damaged, or goes on in the next one{where}"
        except RecursionError:
            continue  # pyarrow reads it
        if not isinstance(value, _Pairs):
            return f"line {number} is no object"
        keys = [key for key, _ in value]
        if len(set(keys)) < len(keys):
            return f"line {number} has the key {next(key for key in keys if keys.count(key) > 1)!r} twice"
    return ""


def _line_of_type(file: InputFile | Pipe, name: str, kind: str) -> str:
    """The first line in which a key has a value of a type of JSON, for a message; "" if it is not found."""
    kinds = {"string": str, "number": (int, float), "boolean": bool, "object": dict, "array": list}
    for number, line in _numbered_lines(file):
        try:
            value = None if line is None else json.loads(line).get(name)
        except RecursionError:
            continue
        if isinstance(value, kinds.get(kind, ())) and (kind == "boolean") == isinstance(value, bool):
            return f" (the first {kind} is in line {number})"
    return ""


class _Pairs(list[tuple[str, Any]]):
    """The keys and values of an object."""


def _numbered_lines(file: InputFile | Pipe) -> Iterator[tuple[int, bytes | None]]:
    """The lines of a file that are not blank, with their numbers from 1, until one that is too long, which is None; none of a pipe."""
    if isinstance(file, Pipe):
        return
    number, rest = 0, b""
    with file.open_text() as stream:
        while part := stream.read(_BLOCK):
            *lines, rest = (rest + part).split(b"\n")
            for line in lines:
                number += 1
                if line.strip():
                    yield number, line
            if len(rest) > _BLOCK:
                yield number + 1, None
                return
    if rest.strip():
        yield number + 1, rest


def _options() -> Any:
    import pyarrow.json

    # One thread, to keep memory constant.
    return pyarrow.json.ReadOptions(block_size=_BLOCK, use_threads=False)


@contextmanager
def _plain_errors(file: InputFile | Pipe, diagnose: bool = True) -> Iterator[None]:
    """Report the errors of pyarrow in one sentence."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise InputError(not_text(file)) from None
    except pa.ArrowInvalid as error:
        # pyarrow counts the rows of one block, so the row in its message is not the row in the file.
        text = re.sub(r" in row \d+$", "", str(error).splitlines()[0])
        if "UTF8" in text:
            raise InputError(not_text(file)) from None
        if line := _line_that_is_no_object(file) if diagnose else "":
            raise InputError(f"{file} is not JSON Lines, one object in each line: {line}.") from None
        if found := re.search(r"Column\(/(.*)\) was specified twice", text):
            raise InputError(
                f"{file} is not JSON Lines, one object in each line: an object has the key {found[1]!r} twice: rename or drop one."
            ) from None
        if found := re.search(r"Column\(/(.*)\) changed from (\w+) to (\w+)", text):
            name, before, after = found.groups()
            raise SchemaError(
                f"column {name!r} of {file} has values of the JSON types {before} and {after}{_line_of_type(file, name, after)}: use one type in a column."
            ) from None
        if found := re.search(r"Failed to convert JSON to (\w+), couldn't parse:(.*)", text):
            kind, cell = found.groups()
            raise SchemaError(
                f"a column of {file} has the type {kind} in its first rows and the value {cell[:60]!r} later: use one type "
                "in a column."
            ) from None
        if "Empty JSON" in text:
            raise InputError(f"{file} has no rows.") from None
        raise InputError(
            f"{file} is not JSON Lines, one object in each line: {text.rsplit('error: ', 1)[-1][:200]}"
        ) from None
