"""Numbers, dates and flags that arrive as text: which type fits a column, and how each cell is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.arrow import compute, to_numpy
from pushforward.errors import SchemaError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["MISSING_WORDS", "convert", "first_bad_number", "narrow", "parse_numbers"]

MISSING_WORDS = ("", "NA", "N/A", "n/a", "NaN", "nan", "null", "NULL", "None", "#N/A", "?")
"""What stands for a missing number in text; in a column of text only the empty cell does."""
_TRUE, _FALSE = ("true", "True", "TRUE"), ("false", "False", "FALSE")
# A leading zero or a hexadecimal prefix makes a code (a postal code, an identifier), not a number.
_CODE = r"^\s*[+-]?0[0-9xX]"
_HEX = r"^\s*[+-]?0[xX]"
_NUMBER = r"(?i)^[+-]?([0-9]+\.?[0-9]*(e[+-]?[0-9]+)?|\.[0-9]+(e[+-]?[0-9]+)?|inf|infinity)$"


def parse_numbers(text: Any) -> tuple[np.ndarray, np.ndarray]:
    """Text cells as float64.

    Args:
        text: pyarrow array or chunked array of strings.

    Returns:
        The numbers, NaN where a cell is missing or unreadable, and a mask of the unreadable cells.
    """
    import pyarrow as pa

    pc = compute()
    try:
        return to_numpy(pc.cast(text, pa.float64())), np.zeros(len(text), dtype=bool)
    except pa.ArrowInvalid:
        pass
    text = _clean(text)
    readable = pc.match_substring_regex(text, _NUMBER)
    numbers = pc.cast(pc.if_else(readable, text, pa.scalar(None, text.type)), pa.float64())
    return to_numpy(numbers), to_numpy(pc.fill_null(pc.invert(readable), False)).astype(bool)


def first_bad_number(text: Any) -> tuple[int, str] | None:
    """Row and text of the first cell that is neither a number nor missing; None if there is none."""
    _, bad = parse_numbers(text)
    if not bad.any():
        return None
    row = int(bad.argmax())
    return row, text[row].as_py()


def narrow(known: pa.DataType, text: Any, *, codes: bool = True) -> pa.DataType:
    """The tightest type that reads the cells seen so far, now that ``text`` was seen as well.

    The order is null, integer, float, boolean, date, timestamp, timestamp in UTC, text. The answer does not depend on
    how a column was cut into blocks.

    Args:
        known: type that fits the blocks before; null before the first.
        text: the next block, pyarrow strings.
        codes: whether numbers with leading zeros are text.
    """
    import pyarrow as pa

    if pa.types.is_string(known):
        return known
    for candidate in _wider(known):
        if _convert(text, candidate, codes) is not None:
            return candidate
    return pa.string()


def convert(text: Any, kind: pa.DataType, *, codes: bool = True) -> Any:
    """Text cells as a pyarrow array of the type that :func:`narrow` chose; missing cells become null.

    Raises:
        SchemaError: if a cell does not read as that type.
    """
    result = _convert(text, kind, codes)
    if result is None:
        raise SchemaError(f"a cell does not read as {kind}: the file changed while it was read.")
    return result


def _wider(known: pa.DataType) -> list[pa.DataType]:
    import pyarrow as pa

    integer, real, flag, day = pa.int64(), pa.float64(), pa.bool_(), pa.date32()
    instant, utc = pa.timestamp("us"), pa.timestamp("us", "UTC")
    after = {
        pa.null(): [pa.null(), integer, real, flag, day, instant, utc],
        integer: [integer, real],
        day: [day, instant],
    }
    return after.get(known, [known])


def _convert(text: Any, kind: pa.DataType, codes: bool) -> Any:
    """The converted cells, or None where one does not fit."""
    import pyarrow as pa

    pc = compute()
    if pa.types.is_string(kind):
        return pc.if_else(pc.equal(text, ""), pa.scalar(None, text.type), text)
    if pa.types.is_null(kind) or pa.types.is_boolean(kind):
        text = _clean(text)
        if pa.types.is_null(kind):
            return pa.nulls(len(text)) if text.null_count == len(text) else None
        place = pc.index_in(text, value_set=pa.array(_TRUE + _FALSE, text.type))
        return pc.less(place, len(_TRUE)) if place.null_count == text.null_count else None
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    if number and pc.any(pc.match_substring_regex(text, _CODE if codes else _HEX)).as_py():
        return None
    result = _cast(text, kind)
    if result is None:
        result = _cast(_clean(text), kind)
    if result is not None and pa.types.is_floating(kind):
        return pc.if_else(pc.is_nan(result), pa.scalar(None, kind), result)
    return result


def _cast(text: Any, kind: pa.DataType) -> Any:
    import pyarrow as pa

    pc = compute()
    try:
        return pc.cast(text, kind)
    except pa.ArrowInvalid:
        return None


def _clean(text: Any) -> Any:
    """Trimmed, with null for the words that stand for a missing number."""
    import pyarrow as pa

    pc = compute()
    text = pc.utf8_trim_whitespace(text)
    return pc.if_else(pc.is_in(text, value_set=pa.array(MISSING_WORDS, text.type)), pa.scalar(None, text.type), text)
