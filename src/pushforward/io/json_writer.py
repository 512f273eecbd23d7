"""Tables as JSON Lines, one object in each line; pyarrow reads this format and does not write it."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
from typing import TYPE_CHECKING, Any

from pushforward.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["JsonWriter"]


class JsonWriter:
    """A writer with the methods of pyarrow's writers.

    Dates, times and instants are written in ISO 8601, durations in seconds, decimals as numbers, NaN as null, and an
    infinity as the largest float64 with its sign, because JSON has no infinity.

    Args:
        sink: a file for bytes.
    """

    def __init__(self, sink: Any) -> None:
        self._sink = sink

    def write_table(self, table: pa.Table) -> None:
        """Append the rows of a table.

        Raises:
            InputError: for a column of bytes or another type that JSON has no form of.
        """
        names = [json.dumps(name, ensure_ascii=False) for name in table.column_names]
        columns = [_texts(name, column) for name, column in zip(table.column_names, table.columns, strict=True)]
        lines = (
            "{" + ", ".join(f"{name}: {text}" for name, text in zip(names, row, strict=True)) + "}\n"
            for row in zip(*columns, strict=True)
        )
        self._sink.write("".join(lines).encode())

    def close(self) -> None:
        """Nothing is pending."""


def _texts(name: str, column: Any) -> list[str]:
    try:
        return [_text(value) for value in column.to_pylist()]
    except (TypeError, ValueError) as error:
        raise InputError(f"column {name!r} of type {column.type} cannot be written as JSON: {error}") from None


def _text(value: Any) -> str:
    if isinstance(value, float):
        if math.isnan(value):
            return "null"
        return repr(value if math.isfinite(value) else math.copysign(sys.float_info.max, value))
    if isinstance(value, (dt.date, dt.time)):
        return f'"{value.isoformat()}"'
    if isinstance(value, dt.timedelta):
        return repr(value.total_seconds())
    if type(value).__name__ == "Decimal":
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(str(key))}: {_text(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):  # the entries of a map are tuples
        return "[" + ", ".join(map(_text, value)) + "]"
    return json.dumps(value, ensure_ascii=False)
