"""Columns of NumPy, pandas and Python objects as pyarrow arrays, and helpers for pyarrow types."""

from __future__ import annotations

import datetime
from numbers import Number
from typing import Any

import numpy as np

from pushforward.errors import InputError

__all__ = [
    "InputTypeError",
    "beyond_int64",
    "compute",
    "is_text",
    "nested_cell",
    "numpy_column",
    "object_column",
    "pandas_column",
    "to_numpy",
    "value_type",
    "without_views",
]


def compute() -> Any:
    """``pyarrow.compute``; type checkers do not know its functions, which are made when it is imported."""
    import pyarrow.compute

    return pyarrow.compute


def beyond_int64(column: Any) -> bool:
    """Whether a column of real numbers has one that is finite and no integer of 64 bits with a sign has."""
    pc = compute()
    return bool(pc.any(pc.and_(pc.greater_equal(column, 2.0**63), pc.is_finite(column))).as_py())


def to_numpy(column: Any) -> np.ndarray:
    """Convert an array or chunked array to NumPy; nulls in numbers become NaN."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):  # whose nulls pyarrow would give the value of another cell
        column = column.cast(column.type.value_type)
    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def value_type(kind: Any) -> Any:
    """The type of a column's cells: of a dictionary-encoded column, the type of its dictionary."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: Any) -> bool:
    """Whether a type is text, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = value_type(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def without_views(column: Any) -> Any:
    """The column with views of text as large strings, also in a dictionary: pyarrow computes little with views."""
    import pyarrow as pa

    if not pa.types.is_string_view(value_type(column.type)):
        return column
    if not pa.types.is_dictionary(column.type):
        return compute().cast(column, pa.large_string())
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = pa.dictionary(column.type.index_type, pa.large_string())
    plain = [
        pa.DictionaryArray.from_arrays(chunk.indices, chunk.dictionary.cast(pa.large_string())) for chunk in chunks
    ]
    return pa.chunked_array(plain, kind)


class InputTypeError(InputError, TypeError):
    """Data have a type that cannot be read at all: sparse matrices, nested cells, objects that are not tables."""


def pandas_column(name: str, series: Any) -> Any:
    """Convert a pandas series to a pyarrow array, NaN to null."""
    import pyarrow as pa

    if series.dtype == object:
        return object_column(name, series.to_numpy())
    if hasattr(series, "sparse"):
        series = series.sparse.to_dense()
    categories = getattr(series.dtype, "categories", None)
    if type(getattr(categories, "dtype", series.dtype)).__name__ in ("IntervalDtype", "PeriodDtype"):
        # Such as pandas.cut makes: their text is a category, and Arrow has no text of them.
        series = (
            series.map(str, na_action="ignore")
            if categories is None
            else series.cat.rename_categories(categories.map(str))
        )
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputTypeError(f"column {name!r} of type {series.dtype} cannot be read: {error}") from error


def numpy_column(name: str, values: np.ndarray) -> Any:
    """Convert one NumPy column to a pyarrow array; masked cells become null."""
    import pyarrow as pa

    kind = values.dtype.kind
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    values = np.asarray(values)
    if kind == "c":
        raise InputError(
            f"Complex data not supported: column {name!r} is {values.dtype}; give real and imaginary parts as columns."
        )
    if kind == "O":
        return object_column(name, values)
    if kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise InputError(
                f"column {name!r} has bytes that are not UTF-8 text: decode them with their own encoding, or drop the column."
            ) from None
    if kind == "V":
        raise InputTypeError(f"column {name!r} has raw bytes ({values.dtype}), not numbers or text: decode or drop it.")
    if kind == "f" and values.dtype.itemsize > 8:
        values = values.astype(np.float64)
    if kind in "Mm" and np.datetime_data(values.dtype)[0] not in ("D", "s", "ms", "us", "ns"):
        values = values.astype(f"{kind}8[s]")
    if not values.dtype.isnative:
        values = values.astype(values.dtype.newbyteorder("="))
    try:
        return pa.array(values, mask=mask)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, ValueError) as error:
        raise InputTypeError(f"column {name!r} of type {values.dtype} cannot be read: {error}") from error


def object_column(name: str, values: np.ndarray) -> Any:
    """Convert Python objects to one typed column; numbers beside text become text, so that the schema can name the cell."""
    import pyarrow as pa

    kinds = {type(value) for value in values}
    if any(issubclass(kind, datetime.datetime) for kind in kinds):
        _check_zones(name, values)
        if datetime.date in kinds:
            instants = _instants(values)  # pyarrow would cut them to dates where a date comes first
            if instants is not None:
                return instants
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError, TypeError):
        column = _numbers(values)
        if column is None:
            column = pa.array([_cell_text(name, value) for value in values], pa.string())
    if pa.types.is_nested(column.type):
        raise nested_cell(name, "a list, array or dictionary")
    return column


def _check_zones(name: str, values: np.ndarray) -> None:
    """pyarrow would read instants without a zone as UTC."""
    instants = [value for value in values if isinstance(value, datetime.datetime) and not _is_missing(value)]
    without = sum(value.tzinfo is None for value in instants)
    if 0 < without < len(instants):
        raise InputError(
            f"column {name!r} has instants with a time zone and others without ({without} of {len(instants)}), which cannot be "
            "compared: give all of them a zone, or none."
        )


def _instants(values: np.ndarray) -> Any:
    """Dates and instants as instants, a date at its midnight; in UTC if the instants have a zone. None for other cells."""
    import pyarrow as pa

    present = [value for value in values if not _is_missing(value)]
    zones = [value.tzinfo for value in present if isinstance(value, datetime.datetime)]
    if not zones or not all(isinstance(value, datetime.date) for value in present):
        return None
    zone = zones[0]
    utc = None if zone is None else datetime.UTC
    whole = [
        datetime.datetime.combine(value, datetime.time(), utc) if type(value) is datetime.date else value
        for value in values
    ]
    try:
        return pa.array(whole, pa.timestamp("us", None if zone is None else "UTC"), from_pandas=True)
    except (pa.ArrowInvalid, OverflowError, ValueError):
        return None


def _numbers(values: np.ndarray) -> Any:
    """Numbers of several Python types, such as Decimal beside float, as float64; None if a cell is something else."""
    import pyarrow as pa

    def number(value: Any) -> bool:
        return isinstance(value, (Number, np.number)) and not isinstance(
            value, (bool, np.bool_, complex, np.complexfloating)
        )

    if not all(_is_missing(value) or number(value) for value in values):
        return None
    try:
        return pa.array([None if _is_missing(value) else float(value) for value in values], pa.float64())
    except (OverflowError, ValueError):
        return None


def _is_missing(value: Any) -> bool:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return True
    return type(value).__name__ in ("NAType", "NaTType")  # pandas' missing values, without importing pandas


def _cell_text(name: str, value: Any) -> str | None:
    if _is_missing(value):
        return None
    if isinstance(value, (complex, np.complexfloating)):
        raise InputError(f"Complex data not supported: column {name!r} has the cell {value!r}.")
    if isinstance(value, (str, Number, np.generic)):
        return str(value)
    raise nested_cell(name, f"a {type(value).__name__}")


def nested_cell(name: str, what: str) -> InputTypeError:
    """The error for a cell that has more than one value."""
    # scikit-learn's estimator checks look for the second half.
    return InputTypeError(f"column {name!r} has {what} in a cell; the argument must be a string or a number.")
