"""Columns as pyarrow arrays: conveniences, and the way in from numpy, pandas and Python objects."""

from __future__ import annotations

from numbers import Number
from typing import Any

import numpy as np

from pushforward.errors import InputError

__all__ = [
    "InputTypeError",
    "compute",
    "is_text",
    "nested_cell",
    "numpy_column",
    "object_column",
    "pandas_column",
    "to_numpy",
    "value_type",
]


def compute() -> Any:
    """``pyarrow.compute``, whose functions are made at import time and so are unknown to type checkers."""
    import pyarrow.compute

    return pyarrow.compute


def to_numpy(column: Any) -> np.ndarray:
    """An array or chunked array as numpy; nulls in numbers become NaN."""
    import pyarrow as pa

    return column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)


def value_type(kind: Any) -> Any:
    """The type of a column's cells, also where the column is dictionary-encoded."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: Any) -> bool:
    """Whether a type holds text, plain or dictionary-encoded."""
    import pyarrow as pa

    kind = value_type(kind)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


class InputTypeError(InputError, TypeError):
    """Data are of a kind that cannot be read at all: sparse matrices, nested cells, no table."""


def pandas_column(name: str, series: Any) -> Any:
    """A pandas series as a pyarrow array, NaN as null."""
    import pyarrow as pa

    if series.dtype == object:
        return object_column(name, series.to_numpy())
    if hasattr(series, "sparse"):
        series = series.sparse.to_dense()
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise InputTypeError(f"column {name!r} of type {series.dtype} cannot be read: {error}") from error


def numpy_column(name: str, values: np.ndarray) -> Any:
    """One numpy column as a pyarrow array; masked cells become null."""
    import pyarrow as pa

    kind = values.dtype.kind
    mask = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    values = np.asarray(values)
    if kind == "c":
        raise InputError(
            f"Complex data not supported: column {name!r} holds {values.dtype}; take real and imaginary parts."
        )
    if kind == "O":
        return object_column(name, values)
    if kind == "S":
        try:
            values = np.char.decode(values, "utf-8")
        except UnicodeDecodeError:
            raise InputError(f"column {name!r} holds bytes that are not UTF-8 text.") from None
    if kind == "V":
        raise InputTypeError(f"column {name!r} holds raw bytes ({values.dtype}), not numbers or text.")
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
    """Python objects as one typed column; numbers beside text become text, so that the schema can name the cell."""
    import pyarrow as pa

    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError, ValueError):
        column = pa.array([_cell_text(name, value) for value in values], pa.string())
    if pa.types.is_nested(column.type):
        raise nested_cell(name, "a list, array or dictionary")
    return column


def _cell_text(name: str, value: Any) -> str | None:
    if value is None or (isinstance(value, (float, np.floating)) and np.isnan(value)):
        return None
    if type(value).__name__ in ("NAType", "NaTType"):  # pandas' missing values, without importing pandas
        return None
    if isinstance(value, (complex, np.complexfloating)):
        raise InputError(f"Complex data not supported: column {name!r} holds {value!r}.")
    if isinstance(value, (str, Number, np.generic)):
        return str(value)
    raise nested_cell(name, f"a {type(value).__name__}")


def nested_cell(name: str, what: str) -> InputTypeError:
    """The error for a cell that holds more than one value."""
    # The second half in the words that scikit-learn's estimator checks look for.
    return InputTypeError(f"column {name!r} holds {what} in a cell; the argument must be a string or a number.")
