"""Tables of any kind as a ``pyarrow.Table``, and arrays of numbers as they are."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from pushforward.data.arrow import (
    InputTypeError,
    compute,
    nested_cell,
    numpy_column,
    object_column,
    pandas_column,
    without_views,
)
from pushforward.errors import InputError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "InputTypeError",
    "as_table",
    "from_tensor",
    "is_frame",
    "is_positional",
    "number_array",
    "plain_array",
    "without_index",
]

_POSITIONAL = b"pushforward.positional"
_INDEX = re.compile(r"__index_level_\d+__")


def as_table(data: Any, *, index: bool | Collection[str] = False) -> pa.Table:
    """Convert any table to a ``pyarrow.Table``.

    Args:
        data: one of

            - a data frame (pandas, polars, or any other that narwhals reads; a lazy frame is collected);
            - a pyarrow table or record batch;
            - a mapping of names to columns, or a structured array;
            - a 2-D array, tensor or list of rows. Its columns have no names: they are called x0, x1, ..., and
              :func:`is_positional` is true of the result.

        index: whether to keep the columns in which pyarrow stores the index of a pandas frame, as in a Parquet file that
            pandas wrote, or the names of those to keep. By default they are left out, as the index of the frame is.

    Raises:
        InputError: for anything that is not a table of plain cells: no columns, a wrong number of dimensions, complex
            numbers, duplicate names, columns of unequal length, nested cells, sparse matrices (the last two are also a
            TypeError).

    Example:
        >>> import numpy as np, pyarrow as pa
        >>> as_table({"age": [31, None], "city": ["Oslo", "Bern"]}).column_names
        ['age', 'city']
        >>> as_table(np.zeros((3, 2))).column_names
        ['x0', 'x1']
        >>> as_table(pa.table({"age": [31], "__index_level_0__": [7]})).column_names
        ['age']
    """
    table = _any_table(data)
    return table if index is True else _checked(without_index(table, index or ()))


def without_index(data: Any, keep: Collection[str] = ()) -> Any:
    """A pyarrow table without the columns that hold the index of a pandas frame; other data as they are.

    Args:
        data: a table or record batch of pyarrow, or something else.
        keep: names of columns that stay.
    """
    pa = sys.modules.get("pyarrow")
    if pa is None or not isinstance(data, (pa.Table, pa.RecordBatch)):
        return data
    stored = _index_names(data.schema.metadata)
    names = data.schema.names
    kept = [name for name in names if name in keep or not (name in stored or _INDEX.fullmatch(name))]
    return data if kept == names else data.select(kept)


def _index_names(metadata: Mapping[bytes, bytes] | None) -> set[str]:
    """The columns of the index by what pandas says of its frame; an index that only counts rows has none."""
    try:
        stored = json.loads((metadata or {}).get(b"pandas", b"{}"))["index_columns"]
    except (ValueError, KeyError, TypeError):
        return set()
    return {name for name in stored if isinstance(name, str)} if isinstance(stored, list) else set()


def _any_table(data: Any) -> pa.Table:
    import pyarrow as pa

    if isinstance(data, pa.Table):
        return _checked(data)
    if isinstance(data, pa.RecordBatch):
        return _checked(pa.Table.from_batches([data]))
    if _is_sparse(data):
        raise InputTypeError("sparse data are not supported: pass a dense array, x.toarray().")
    if isinstance(data, Mapping):
        return _from_mapping(data)
    if isinstance(data, np.ndarray):
        return _from_array(data)
    if _is_data_frame(data):
        return _from_frame(data)
    if "torch" in sys.modules and isinstance(data, sys.modules["torch"].Tensor):
        return _from_array(from_tensor(data))
    if hasattr(data, "__array__") or (isinstance(data, Sequence) and not isinstance(data, (str, bytes))):
        return _from_array(_as_array(data))
    raise InputTypeError(
        "expected a table (a data frame, a pyarrow table, a 2-D array or a dict of columns); got "
        f"{type(data).__name__}."
    )


def number_array(data: Any) -> np.ndarray | None:
    """Return a 2-D array, tensor or list of real numbers as a plain NumPy array; None for any other data.

    Such data need no ``pyarrow.Table``. An array is returned without a copy. None does not mean that the data are
    wrong: :func:`as_table` reads them, or says why it cannot.
    """
    if "torch" in sys.modules and isinstance(data, sys.modules["torch"].Tensor):
        if _is_sparse(data):
            return None
        data = from_tensor(data)
    elif isinstance(data, Sequence) and not isinstance(data, (str, bytes)):
        data = _as_array(data)
    if not isinstance(data, np.ndarray) or isinstance(data, np.ma.MaskedArray):
        return None
    if data.dtype.kind not in "fiu" or data.ndim != 2 or data.shape[1] == 0:
        return None
    return np.asarray(data)


def is_frame(data: Any) -> bool:
    """Whether data are a table of named columns; a pandas frame has no names where its column labels are not text.

    Example:
        >>> import numpy as np, pyarrow as pa
        >>> from pushforward.data import is_frame
        >>> is_frame(pa.table({"a": [1]})), is_frame(np.zeros((2, 2)))
        (True, False)
    """
    import narwhals as nw
    import pyarrow as pa

    if isinstance(data, (pa.Table, pa.RecordBatch, Mapping)):
        return not (isinstance(data, pa.Table) and is_positional(data))
    if isinstance(data, np.ndarray):
        return data.dtype.names is not None
    if nw.dependencies.is_pandas_dataframe(data):
        return not len(data.columns) or any(isinstance(name, str) for name in data.columns)
    return _is_data_frame(data)


def is_positional(table: pa.Table) -> bool:
    """Whether a table was made from an array, whose columns have positions and no names.

    Example:
        >>> import numpy as np
        >>> from pushforward.data import as_table, is_positional
        >>> is_positional(as_table(np.zeros((2, 2)))), is_positional(as_table({"a": [1.0]}))
        (True, False)
    """
    return _POSITIONAL in (table.schema.metadata or {})


def _is_data_frame(data: Any) -> bool:
    import narwhals as nw

    if nw.dependencies.is_pandas_dataframe(data):  # first, because narwhals raises its own error for duplicate names
        return True
    return isinstance(nw.from_native(data, pass_through=True), (nw.DataFrame, nw.LazyFrame))


def _checked(table: pa.Table) -> pa.Table:
    if table.num_columns == 0:
        _no_columns(table.num_rows)
    names = table.column_names
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise InputError(f"the table has more than one column named {twice[0]!r}: rename or drop one.")
    return _plain_columns(table)


def _plain_columns(table: pa.Table) -> pa.Table:
    """The table with views of text as large strings, decimals of 128 bits or more, and without runs: pyarrow computes little with the others."""
    import pyarrow as pa

    for k, field in enumerate(table.schema):
        column = table.column(k)
        if pa.types.is_run_end_encoded(field.type):
            column = pa.chunked_array(
                [compute().run_end_decode(chunk) for chunk in column.chunks], field.type.value_type
            )
        column = without_views(column)
        if pa.types.is_decimal(column.type) and column.type.bit_width < 128:
            column = column.cast(pa.decimal128(column.type.precision, column.type.scale))
        if column.type != field.type:
            table = table.set_column(k, field.with_type(column.type), column)
    return table


def _no_columns(rows: int) -> None:
    # scikit-learn's estimator checks look for these words.
    raise InputError(f"the table has no columns: 0 feature(s) (shape=({rows}, 0)) while a minimum of 1 is required.")


def _is_sparse(data: Any) -> bool:
    import torch

    if isinstance(data, torch.Tensor):
        return data.layout != torch.strided
    return "scipy.sparse" in sys.modules and sys.modules["scipy.sparse"].issparse(data)


def _from_frame(data: Any) -> pa.Table:
    import narwhals as nw
    import pyarrow as pa

    if nw.dependencies.is_pandas_dataframe(data):
        return _from_pandas(data)
    frame = nw.from_native(data)
    if isinstance(frame, nw.LazyFrame):
        frame = frame.collect()
    try:
        return _checked(frame.to_arrow())
    except InputError:
        raise
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError, ValueError) as error:
        raise InputTypeError(
            f"a column of the {type(data).__name__} has cells that cannot be converted to Arrow: {error}"
        ) from error
    except Exception as error:  # polars has error classes of its own, and panics at columns of Python objects
        raise InputTypeError(f"the {type(data).__name__} cannot be read as a table: {error}") from error


def _from_pandas(frame: Any) -> pa.Table:
    names = list(frame.columns)
    named = [isinstance(name, str) for name in names]
    if any(named) and not all(named):
        other = next(name for name, text in zip(names, named, strict=True) if not text)
        raise InputTypeError(
            f"either all column names or none must be text; {other!r} is not text: df.columns = df.columns.astype(str) converts them."
        )
    if not names:
        _no_columns(len(frame))
    positional = not all(named)
    labels = [f"x{i}" for i in range(len(names))] if positional else names
    columns = [pandas_column(label, frame.iloc[:, i]) for i, label in enumerate(labels)]
    return _assemble(columns, labels, positional)


def _from_mapping(data: Mapping[Any, Any]) -> pa.Table:
    if not data:
        _no_columns(0)
    columns, lengths = [], {}
    for name, values in data.items():
        if not isinstance(name, str):
            raise InputTypeError(f"column names must be text; got {name!r}.")
        columns.append(_mapping_column(name, values))
        lengths[name] = len(columns[-1])
    if len(set(lengths.values())) > 1:
        first, n = next(iter(lengths.items()))
        other, m = next((name, length) for name, length in lengths.items() if length != n)
        raise InputError(f"columns have unequal lengths: {first!r} has {n} rows and {other!r} has {m}.")
    return _assemble(columns, list(data), False)


def _mapping_column(name: str, values: Any) -> Any:
    import narwhals as nw
    import pyarrow as pa

    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    if nw.dependencies.is_pandas_series(values):
        return pandas_column(name, values)
    series = nw.from_native(values, pass_through=True, allow_series=True)
    if isinstance(series, nw.Series):
        return series.to_arrow()
    if isinstance(values, (list, tuple)):
        if any(isinstance(value, (list, tuple, np.ndarray)) for value in values):
            raise nested_cell(name, "a list or array")
        return object_column(name, np.fromiter(values, dtype=object, count=len(values)))
    if _is_sparse(values):
        raise InputTypeError(f"column {name!r} is sparse, which is not supported: make it dense.")
    array = from_tensor(values) if type(values).__module__.startswith("torch") else values
    array = _as_array(array)
    if array.ndim != 1:
        hint = f": for one row give a list, {{{name!r}: [{array.item()!r}]}}" if array.ndim == 0 else ""
        raise InputError(f"column {name!r} must be one-dimensional; got shape {array.shape}{hint}.")
    return numpy_column(name, array)


def from_tensor(tensor: Any) -> np.ndarray:
    """A tensor as an array, without its gradient; bfloat16 as float32."""
    import torch

    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()


def plain_array(values: Any, name: str) -> np.ndarray:
    """An array from an array, a list, or a tensor of any type and on any device, also with a gradient.

    Args:
        values: of any shape.
        name: of the values in an error, in the plural.

    Raises:
        InputError: for rows of different lengths, and for what is no array.
    """
    try:
        if hasattr(values, "detach"):  # a tensor, perhaps with a gradient or on a GPU
            values = from_tensor(values.double() if values.is_floating_point() else values)
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"{name} must be an array of numbers, and these have rows of unequal lengths or other objects: {error}"
        ) from error


def _as_array(data: Any) -> np.ndarray:
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"the data are not a table: rows have unequal lengths, or a cell cannot be read: {error}"
        ) from error
    if array.dtype.kind == "U" and isinstance(data, Sequence):  # NumPy converts numbers beside text to text
        array = np.asarray(data, dtype=object)
    return array


def _from_array(array: np.ndarray) -> pa.Table:
    if not isinstance(array, np.ma.MaskedArray):
        array = np.asarray(array)  # a column of np.matrix is a matrix
    if array.dtype.names is not None:
        if array.ndim != 1:
            raise InputError(f"a structured array must have one dimension, its rows; got shape {array.shape}.")
        if any(array.dtype[name].shape for name in array.dtype.names):
            raise nested_cell(next(n for n in array.dtype.names if array.dtype[n].shape), "an array")
        names = list(array.dtype.names)
        return _assemble([numpy_column(name, array[name]) for name in names], names, False)
    if array.ndim != 2:
        hint = {
            0: "this is one number.",
            1: "for one column use x.reshape(-1, 1), for one row x.reshape(1, -1) (Reshape your data).",
        }.get(array.ndim, "flatten each row, x.reshape(len(x), -1), or use an image model.")
        raise InputError(f"expected a 2D array of rows and columns; got shape {array.shape}: {hint}")
    if array.shape[1] == 0:
        _no_columns(len(array))
    names = [f"x{i}" for i in range(array.shape[1])]
    return _assemble([numpy_column(name, array[:, i]) for i, name in enumerate(names)], names, True)


def _assemble(columns: list[Any], names: list[str], positional: bool) -> pa.Table:
    import pyarrow as pa

    return _checked(pa.table(columns, names=names, metadata={_POSITIONAL: b"1"} if positional else None))
