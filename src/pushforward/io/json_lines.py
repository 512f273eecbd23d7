"""JSON Lines files, one object in each line, read by ``pyarrow.json`` and ``pyarrow.dataset``."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pushforward.errors import InputError, SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["infer_json", "read_json", "stream_json"]


def read_json(path: Path) -> pa.Table:
    """Read a whole file. ``pyarrow.json`` infers the type of each key from all rows; an absent key is a missing cell.

    Raises:
        InputError: if the file is not JSON Lines.
        SchemaError: for a key with values of different types.
    """
    import pyarrow as pa
    import pyarrow.json

    with _plain_errors(path):
        compression = "gzip" if path.name.lower().endswith(".gz") else None
        with pa.input_stream(str(path), compression=compression) as stream:
            table = pyarrow.json.read_json(stream)
        table.validate(full=True)  # pyarrow does not look at the bytes of a text
        return table


def infer_json(path: Path, types: Mapping[str, pa.DataType]) -> pa.Schema:
    """The schema of a file, from its first rows and the types that are known of its columns."""
    import pyarrow as pa
    from pyarrow import dataset

    def fitted(field: pa.Field) -> pa.Field:
        wanted = types.get(field.name)
        if pa.types.is_null(field.type):
            return field.with_type(wanted or pa.string())
        return field.with_type(pa.float64()) if wanted == pa.float64() and pa.types.is_integer(field.type) else field

    with _plain_errors(path):
        return pa.schema([fitted(field) for field in dataset.dataset(str(path), format="json").schema])


def stream_json(path: Path, schema: pa.Schema) -> Iterator[pa.Table]:
    """Read a file in constant memory, as tables of a schema that :func:`infer_json` found."""
    import pyarrow as pa
    from pyarrow import dataset

    with _plain_errors(path):
        # No read-ahead and one thread, to keep memory constant.
        scan = {"batch_readahead": 0, "fragment_readahead": 0, "use_threads": False}
        for batch in dataset.dataset(str(path), format="json", schema=schema).to_batches(**scan):
            batch.validate(full=True)
            yield pa.Table.from_batches([batch])


@contextmanager
def _plain_errors(path: Path) -> Iterator[None]:
    """Report the errors of pyarrow in one sentence."""
    import pyarrow as pa

    try:
        yield
    except UnicodeDecodeError:
        raise InputError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
    except pa.ArrowInvalid as error:
        # pyarrow counts the rows of one block, so the row in its message is not the row in the file.
        text = re.sub(r" in row \d+$", "", str(error).splitlines()[0])
        if "UTF8" in text:
            raise InputError(f"{path} is not UTF-8 text: save it as UTF-8.") from None
        if found := re.search(r"Column\(/(.*)\) changed from (\w+) to (\w+)", text):
            name, before, after = found.groups()
            raise SchemaError(
                f"column {name!r} of {path} has values of the JSON types {before} and {after}: use one type in a column."
            ) from None
        if found := re.search(r"Failed to convert JSON to (\w+), couldn't parse:(.*)", text):
            kind, cell = found.groups()
            raise SchemaError(
                f"a column of {path} has the type {kind} in its first rows and the value {cell[:60]!r} later: use one type "
                "in a column."
            ) from None
        if "Empty JSON" in text:
            raise InputError(f"{path} has no rows.") from None
        raise InputError(
            f"{path} is not JSON Lines, one object in each line: {text.rsplit('error: ', 1)[-1][:200]}"
        ) from None
