"""JSON Lines files, one object in each line, read by ``pyarrow.json``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from pushforward.errors import InputError, SchemaError
from pushforward.io.input_file import InputFile, not_text
from pushforward.io.pipe import Pipe

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["infer_json", "integer_keys", "read_json", "stream_json"]


def read_json(file: InputFile) -> pa.Table:
    """Read a whole file. ``pyarrow.json`` infers the type of each key from all rows; an absent key is a missing cell.

    Raises:
        InputError: if the file is not JSON Lines.
        SchemaError: for a key with values of different types.
    """
    import pyarrow.json

    with _plain_errors(file):
        with file.open_text() as stream:
            table = pyarrow.json.read_json(stream)
        table.validate(full=True)  # pyarrow does not look at the bytes of a text
        return table


def infer_json(file: InputFile | Pipe, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a file, from its first rows and the types that are known of its columns."""
    import pyarrow as pa
    import pyarrow.json

    def fitted(field: pa.Field) -> pa.Field:
        wanted = types.get(field.name)
        if pa.types.is_null(field.type):
            return field.with_type(wanted or pa.string())
        return field.with_type(pa.float64()) if wanted == pa.float64() and pa.types.is_integer(field.type) else field

    with _plain_errors(file), pyarrow.json.open_json(file.open_start(), _options()) as reader:
        return pa.schema([fitted(field) for field in reader.schema])


_SEARCHED = 16
"""Keys among which those that are not whole are searched for; of more, one that is not makes all of them real numbers."""


def integer_keys(files: Sequence[InputFile], names: Sequence[str]) -> list[str]:
    """Those of the keys whose value is an integer of int64, null or absent in every line, and an integer in the first ones."""
    import pyarrow as pa
    import pyarrow.json

    with _plain_errors(files[0]), pyarrow.json.open_json(files[0].open_start(), _options()) as reader:
        known = {field.name: field.type for field in reader.schema}

    def whole(chosen: Sequence[str]) -> bool:
        schema = pa.schema([(name, pa.int64()) for name in chosen])
        try:
            for file in files:
                for _ in stream_json(file, schema):
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
    return search(found) if len(found) <= _SEARCHED or whole(found) else []


def stream_json(file: InputFile | Pipe, schema: pa.Schema) -> Iterator[pa.Table]:
    """Read a file in constant memory, as tables of a schema that :func:`infer_json` found. Other keys are ignored."""
    import pyarrow as pa
    import pyarrow.json

    with _plain_errors(file):
        parse = pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore")
        with pyarrow.json.open_json(file.open_text(), _options(), parse) as reader:
            for batch in reader:
                batch.validate(full=True)
                yield pa.Table.from_batches([batch]).select(schema.names)


def _options() -> Any:
    import pyarrow.json

    # One thread, to keep memory constant.
    return pyarrow.json.ReadOptions(block_size=1 << 20, use_threads=False)


@contextmanager
def _plain_errors(file: InputFile | Pipe) -> Iterator[None]:
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
        if found := re.search(r"Column\(/(.*)\) changed from (\w+) to (\w+)", text):
            name, before, after = found.groups()
            raise SchemaError(
                f"column {name!r} of {file} has values of the JSON types {before} and {after}: use one type in a column."
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
