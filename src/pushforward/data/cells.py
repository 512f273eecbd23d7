"""Cells of one column as float64: numbers as they are, flags as 0 and 1, categories as codes, instants as seconds."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from pushforward.data.arrow import compute, is_text, to_numpy, value_type, without_views
from pushforward.data.text import MISSING_WORDS, cleaned, parse_numbers
from pushforward.errors import SchemaError

__all__ = [
    "INSTANTS",
    "TIMES",
    "Cells",
    "are_times",
    "category_cells",
    "codes_of",
    "flag_cells",
    "number_cells",
    "parse_times",
    "seconds_to_time",
    "spellings",
    "text_of",
    "time_kind",
    "time_type",
    "times_of_day",
]

TIMES = ("timestamp", "timestamp_utc", "date", "time", "duration")
INSTANTS = ("timestamp", "timestamp_utc", "date")
_ZONE = r":\S*(Z|z|[+-]\d\d:?\d\d|[+-]\d\d)\s*$"
"""The end of an instant with a zone."""
_READ_AS_TEXT = (*INSTANTS, "time")
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_FIRST = 1000  # cells that are looked at before all others
_FLAGS = ("false", "true", "False", "True", "FALSE", "TRUE", "0", "1", "0.0", "1.0")
_TIME_OF_DAY = r"^\s*([01]?[0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\.[0-9]+)?\s*$"
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?", re.ASCII)


@dataclass(frozen=True)
class Cells:
    """The cells of one column.

    Attributes:
        values: float64; NaN where missing, unreadable or unseen.
        unreadable: mask of text that is not a number, or None.
        unseen: mask of values that the fitted column did not have, or None.
        text: the column as text, where one of the masks is given.
        other_zone: number of instants with a time zone in a column without, or without one in a column of UTC.
    """

    values: np.ndarray
    unreadable: np.ndarray | None = None
    unseen: np.ndarray | None = None
    text: Any = None
    other_zone: int = 0


def number_cells(name: str, column: Any, time: str = "") -> Cells:
    """Read numbers, flags, numbers written as text, or instants (seconds since 1970 UTC) as float64.

    Raises:
        SchemaError: if the column's type cannot be read as numbers, or as the instants that ``time`` names.
    """
    import pyarrow as pa

    pc = compute()
    column = without_views(column)
    kind = value_type(column.type)
    if pa.types.is_dictionary(column.type):
        column = pc.cast(column, kind)
    if pa.types.is_null(kind):
        return Cells(np.full(len(column), np.nan))
    if is_text(kind):
        text = pc.cast(column, pa.large_string())
        values, bad, other = parse_times(text, time) if time in _READ_AS_TEXT else (*parse_numbers(text), 0)
        return Cells(values, bad if bad.any() else None, text=text, other_zone=other)
    if pa.types.is_temporal(kind):
        found = time_kind(kind)
        if not found:
            raise SchemaError(f"column {name!r} has the type {kind}, which is not a number: drop or convert it.")
        if found != time and not (found in INSTANTS and time in INSTANTS):
            wanted = f"{time.split('_')[0]}s" if time else "numbers"
            raise SchemaError(f"column {name!r} must be {wanted}, and its type is {kind}: convert it.")
        other = "timestamp" in found and "timestamp" in time and found != time
        return Cells(_seconds(column, kind), other_zone=len(column) - column.null_count if other else 0)
    if (
        pa.types.is_boolean(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
    ):
        if pa.types.is_decimal(kind):  # through text, since pyarrow does not round decimals to the nearest number
            column = pc.cast(column, pa.string())
        return Cells(to_numpy(pc.cast(column, pa.float64(), safe=False)))
    raise SchemaError(f"column {name!r} has the type {kind}, which is not a number: drop or convert it.")


def flag_cells(name: str, column: Any) -> Cells:
    """Read booleans as 0 and 1, also where they are written as the numbers 0 and 1 or as text; other cells are unseen.

    As in a CSV file whose flags ``pyarrow.csv`` reads, spaces around a text are no part of it, and NA and its like are missing.
    """
    import pyarrow as pa

    pc = compute()
    if pa.types.is_boolean(column.type):
        return Cells(to_numpy(pc.cast(column, pa.float64())))
    text = text_of(name, column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type):
        numbers = to_numpy(pc.cast(column, pa.float64(), safe=False))
        return _found(np.where((numbers == 0) | (numbers == 1), numbers + 0.0, np.nan), text)
    if is_text(column.type):
        text = cleaned(text)
    return _found(np.mod(codes_of(text, _FLAGS), 2), text)


def category_cells(name: str, column: Any, categories: tuple[str, ...]) -> Cells:
    """Read categories as codes 0..K-1, matched by their text; 1, 1.0 and "1" are one category."""
    import pyarrow as pa

    pc = compute()
    text = text_of(name, column)
    codes = pc.index_in(text, value_set=pa.array(categories, text.type))
    if codes.null_count > text.null_count and any(_canonical(c) is not None for c in categories):
        codes = pc.coalesce(codes, _match_canonical(text, codes, categories))
    return _found(to_numpy(pc.cast(codes, pa.float64())), text)


def codes_of(text: Any, categories: tuple[str, ...]) -> np.ndarray:
    """Index of each text among the categories, as float64; NaN for a missing or any other text."""
    import pyarrow as pa

    pc = compute()
    return to_numpy(pc.cast(pc.index_in(text, value_set=pa.array(categories, text.type)), pa.float64()))


def text_of(name: str, column: Any) -> Any:
    """Convert a column to large strings, null where missing (null, NaN or empty text).

    Raises:
        SchemaError: if its cells cannot be written as plain text (lists, structures, bytes).
    """
    import pyarrow as pa

    pc = compute()
    column = without_views(column)
    kind = value_type(column.type)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_fixed_size_binary(kind):
        raise SchemaError(
            f"column {name!r} has the type {kind}, which is neither a number nor a category: drop or convert it."
        )
    try:
        if pa.types.is_dictionary(column.type):
            column = pc.cast(column, kind)
        text = pc.cast(pc.cast(column, pa.float32()) if pa.types.is_float16(kind) else column, pa.large_string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise SchemaError(f"column {name!r} of type {kind} cannot be read as categories: {error}") from error
    missing = pc.equal(text, "")
    if pa.types.is_floating(kind):
        missing = pc.or_(missing, pc.equal(text, "nan"))
    return pc.if_else(missing, pa.scalar(None, text.type), text)


def time_kind(kind: Any) -> str:
    """The name among :data:`TIMES` of a pyarrow type; "" if it is not a type of instants or durations."""
    import pyarrow as pa

    if pa.types.is_timestamp(kind):
        return "timestamp_utc" if kind.tz else "timestamp"
    if pa.types.is_date(kind):
        return "date"
    if pa.types.is_time(kind):
        return "time"
    return "duration" if pa.types.is_duration(kind) else ""


def time_type(time: str) -> Any:
    """The pyarrow type that decoded tables use for one of :data:`TIMES`."""
    import pyarrow as pa

    return {
        "timestamp": pa.timestamp("us"),
        "timestamp_utc": pa.timestamp("us", "UTC"),
        "date": pa.date32(),
        "time": pa.time64("us"),
        "duration": pa.duration("us"),
    }[time]


def times_of_day(name: str, text: Any) -> Any:
    """Text cells as times of day, where all that are not missing are some with seconds, such as 9:05:00 or 23:59:59.125; else None.

    Args:
        name: of the column.
        text: pyarrow array or chunked array of strings.
    """
    pc = compute()
    for part in (text.slice(0, _FIRST), text):  # most other text ends it at once
        if not pc.all(pc.match_substring_regex(cleaned(part), _TIME_OF_DAY), min_count=0).as_py():
            return None
    text = cleaned(text)
    if text.null_count == len(text):
        return None
    return seconds_to_time(name, parse_times(text, "time")[0], "time")


def seconds_to_time(name: str, seconds: np.ndarray, time: str) -> Any:
    """Convert seconds back to instants, NaN to null.

    Raises:
        SchemaError: for seconds outside the range of the type.
    """
    import pyarrow as pa

    missing = np.isnan(seconds)
    ticks = _ticks(seconds, time)
    bad = ~are_times(seconds, time)
    if bad.any():
        row = int(bad.argmax())
        raise SchemaError(
            f"column {name!r}, row {row} (counted from 0): {seconds[row]} seconds is outside the range of a {time}."
        )
    ticks = np.where(missing, 0, ticks).astype(np.int32 if time == "date" else np.int64)
    return pa.array(ticks, mask=missing).cast(time_type(time))


def are_times(seconds: np.ndarray, time: str) -> np.ndarray:
    """Whether :func:`seconds_to_time` can convert each number of seconds; NaN, a missing cell, it can."""
    limit = 2.0**31 if time == "date" else 86400e6 if time == "time" else 2.0**63
    ticks = _ticks(seconds, time)
    return np.isnan(seconds) | ((ticks >= (0.0 if time == "time" else -limit)) & (ticks < limit))


def _ticks(seconds: np.ndarray, time: str) -> np.ndarray:
    """Days of a date, and microseconds of the others."""
    return np.floor(seconds / 86400) if time == "date" else np.rint(seconds * 1e6)


def _seconds(column: Any, kind: Any) -> np.ndarray:
    import pyarrow as pa

    pc = compute()
    if pa.types.is_date32(kind):
        return to_numpy(pc.cast(pc.cast(column, pa.int32()), pa.float64())) * 86400.0
    unit = 10**3 if pa.types.is_date64(kind) else _PER_SECOND[kind.unit]
    ticks = pc.cast(column, pa.int32() if pa.types.is_time32(kind) else pa.int64())
    if (
        unit == 10**9
    ):  # float64 has fewer digits than instants in nanoseconds, and the same instant in microseconds must be equal
        whole = pc.divide(ticks, unit)
        rest = pc.subtract(ticks, pc.multiply(whole, unit))
        return to_numpy(pc.cast(whole, pa.float64())) + to_numpy(pc.cast(rest, pa.float64())) / unit
    return to_numpy(pc.cast(ticks, pa.float64(), safe=False)) / unit


def parse_times(text: Any, time: str) -> tuple[np.ndarray, np.ndarray, int]:
    """Parse instants or times of day written in ISO 8601 as seconds, and mark those that are not; each distinct text is parsed once.

    The last result is the number of instants that have a zone in a column without, or none in a column of UTC.
    """
    import pyarrow as pa

    whole = text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text
    encoded = whole.dictionary_encode()
    parse = _parse_time_of_day if time == "time" else _parse_time
    read = np.array([*map(parse, encoded.dictionary.to_pylist()), np.nan])
    index = to_numpy(encoded.indices.fill_null(len(read) - 1))
    values = read[index]
    other = 0
    if "timestamp" in time:  # a date alone has no zone
        timed = [":" in value for value in encoded.dictionary.to_pylist()]
        zoned = to_numpy(compute().match_substring_regex(encoded.dictionary, _ZONE)).astype(bool)
        wrong = np.array(timed, bool) & (zoned != (time == "timestamp_utc")) & np.isfinite(read[:-1])
        other = int(np.append(wrong, False)[index].sum())
    return np.where(np.isinf(values), np.nan, values), np.isinf(values), other


def _parse_time(value: str) -> float:
    """Seconds since 1970, in UTC where no zone is given; NaN for a missing cell, inf for text that is not an instant."""
    if value.strip() in MISSING_WORDS:
        return np.nan
    try:
        instant = datetime.datetime.fromisoformat(value.strip())
    except ValueError:
        return np.inf
    return (instant if instant.tzinfo else instant.replace(tzinfo=datetime.UTC)).timestamp()


def _parse_time_of_day(value: str) -> float:
    """Seconds since midnight of 23:59:59 or of a number of seconds; NaN for a missing cell, inf for other text."""
    if value.strip() in MISSING_WORDS:
        return np.nan
    try:
        if ":" not in value:
            return float(value)
        value = value.strip()
        time = datetime.time.fromisoformat(value if value[1:2] != ":" else f"0{value}")
    except ValueError:
        return np.inf
    if time.tzinfo is not None:
        return np.inf
    return 3600.0 * time.hour + 60.0 * time.minute + time.second + time.microsecond / 1e6


def _found(values: np.ndarray, text: Any) -> Cells:
    unseen = np.isnan(values) & to_numpy(compute().is_valid(text)).astype(bool)
    return Cells(values, unseen=unseen, text=text) if unseen.any() else Cells(values)


def _canonical(text: str) -> str | None:
    """One spelling of a number or flag, None for other text; "007" is a code, so it is other text."""
    if text.lower() in ("true", "false"):
        return text.lower()
    if not _PLAIN_NUMBER.fullmatch(text):
        return None
    shortest = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if shortest == "-0" else shortest


def spellings(text: str) -> tuple[str, ...]:
    """The most usual other texts that :func:`category_cells` reads as a category that is a number or a flag; up to three decimals."""
    canonical = _canonical(text)
    if canonical in ("true", "false"):
        return canonical, canonical.capitalize(), canonical.upper()
    if canonical is None:
        return ()
    whole, _, decimals = canonical.partition(".")
    return canonical, *(f"{whole}.{decimals.ljust(count, '0')}" for count in range(len(decimals) + 1, 4))


def _match_canonical(text: Any, codes: Any, categories: tuple[str, ...]) -> Any:
    """Codes of cells whose text is not a category itself but spells the number or flag of one."""
    import pyarrow as pa

    pc = compute()
    known = {}
    for code, category in enumerate(categories):
        known.setdefault(_canonical(category), code)
    known.pop(None, None)
    left = pc.unique(pc.filter(text, pc.and_(pc.is_null(codes), pc.is_valid(text)))).to_pylist()
    pairs = [(value, known[key]) for value in left if (key := _canonical(value)) in known]
    spelled = pa.array([value for value, _ in pairs], text.type)
    matched = pa.array([code for _, code in pairs], pa.int32())
    return pc.take(matched, pc.index_in(text, value_set=spelled))
