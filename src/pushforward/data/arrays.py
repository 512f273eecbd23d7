"""Training data as tensors: arrays, tensors, lists and data frames of numbers."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.data.arrow import InputTypeError, to_numpy
from pushforward.data.cells import number_cells
from pushforward.data.tables import as_table, is_frame
from pushforward.errors import InputError

__all__ = ["as_tensor_data", "frame_numbers"]

_BLOCK = 1 << 22  # numbers checked at a time, so that a memory-mapped array is not read into memory as a whole


def as_tensor_data(data: Any, context: Any = None, *, what: str = "the data") -> tuple[Tensor, Tensor | None]:
    """Check data and their context, and convert both to tensors with one leading batch dimension.

    Arrays share their memory with the tensor where torch allows it, memory-mapped arrays too. Tensors are returned as
    they are, on their device. Half precision becomes float32, booleans become uint8. A data frame becomes float64, or
    int64 if all its columns are integers.

    Args:
        data: ``(n, *shape)`` numbers: NumPy array, torch tensor, nested lists, or a data frame.
        context: ``(n, width)`` numbers of the same types, or ``(1, width)`` for one context of all rows; None for none.
        what: the data, for error messages.

    Returns:
        The tensors; the second is None without a context.

    Raises:
        InputError: for no rows, NaN or infinity (it names row and column), text, objects, complex or sparse data, or a
            context of another length.

    Example:
        >>> x, _ = as_tensor_data([[1.0, 2.0], [3.0, 4.0]])
        >>> x.shape, x.dtype
        (torch.Size([2, 2]), torch.float64)
    """
    x = _tensor(data, what)
    if context is None:
        return x, None
    c = _tensor(context, "the context")
    if c.dim() < 2 or len(c) not in (1, len(x)):
        raise InputError(
            f"the context must have shape ({len(x)}, width), a row for each row of the data; got {tuple(c.shape)}."
        )
    return x, c.expand(len(x), *c.shape[1:])


def _tensor(data: Any, what: str) -> Tensor:
    if isinstance(data, Tensor):
        if data.layout != torch.strided:
            raise InputTypeError(f"{what} are sparse, which is not supported: pass a dense tensor.")
        if data.is_complex():
            raise InputError(f"Complex data not supported: {what} are {data.dtype}.")
        x, names = data.detach(), None
        x = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        x = x.to(torch.uint8) if x.dtype == torch.bool else x
    else:
        array, names = _array(data, what)
        x = _to_tensor(array)
    if x.dim() == 0:
        raise InputError(f"{what} are one number: give an array of rows.")
    if len(x) == 0:
        raise InputError(f"{what} have 0 rows.")
    if x.is_floating_point():
        _check_finite(x, what, names)
    return x


def _array(data: Any, what: str) -> tuple[np.ndarray, list[str] | None]:
    """Convert to a NumPy array of numbers, and return the names of its columns if they have names."""
    if hasattr(data, "tocsr"):
        raise InputTypeError(f"{what} are sparse, which is not supported: pass a dense array, x.toarray().")
    if is_frame(data) or hasattr(data, "columns"):
        return frame_numbers(data, what)
    if np.ma.is_masked(data):  # numpy would give the values behind the mask
        data = data.astype(np.float64).filled(np.nan)
    try:
        array = np.asarray(data)
    except (ValueError, TypeError) as error:
        raise InputError(f"{what} are not an array (rows of unequal length?): {error}") from error
    kind, size = array.dtype.kind, array.dtype.itemsize
    if kind == "c":
        raise InputError(f"Complex data not supported: {what} are {array.dtype}.")
    if kind not in "fiub":
        raise InputTypeError(
            f"{what} must be numbers; got {array.dtype}: convert them with x.astype(float), or use pf.Guard, which "
            "reads text and categories."
        )
    if kind == "b":
        return array.astype(np.uint8), None
    if kind == "f" and size not in (4, 8):
        return array.astype(np.float32 if size < 4 else np.float64), None
    if kind == "u" and size > 1:
        return _signed(array, what), None
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("=")), None


def _signed(array: np.ndarray, what: str) -> np.ndarray:
    """Integers as int64."""
    if array.size and array.max() > np.iinfo(np.int64).max:
        raise InputError(f"{what} have integers of more than 63 bits: convert them with x.astype(float).")
    return array.astype(np.int64)


def frame_numbers(data: Any, what: str) -> tuple[np.ndarray, list[str]]:
    """A data frame of numbers, flags and missing cells as int64 or float64, and the names of its columns.

    Raises:
        InputError: for text that is no number; it names the column and the row.
    """
    import pyarrow as pa

    table = as_table(data)
    names = table.column_names
    if all(pa.types.is_integer(column.type) and column.null_count == 0 for column in table.columns):
        return np.stack([_signed(to_numpy(column), what) for column in table.columns], axis=1), names
    columns = []
    for name, column in zip(names, table.columns, strict=True):
        cells = number_cells(name, column)
        if cells.unreadable is not None:
            row = int(cells.unreadable.argmax())
            raise InputError(
                f"{what} must be numbers; column {name!r}, row {row} (counted from 0), is "
                f"{cells.text[row].as_py()[:60]!r}: drop the column, or use pf.Guard, which reads text."
            )
        columns.append(cells.values)
    return np.stack(columns, axis=1), names


def _to_tensor(array: np.ndarray) -> Tensor:
    """A tensor that shares the array's memory, where torch can."""
    if any(stride < 0 for stride in array.strides):
        array = array.copy()
    with warnings.catch_warnings():
        # A read-only array, such as a memory-mapped one, is only read here.
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(array)


def _check_finite(x: Tensor, what: str, names: list[str] | None) -> None:
    step = max(1, _BLOCK // max(1, x[0].numel()))
    for start in range(0, len(x), step):
        block = x[start : start + step]
        finite = torch.isfinite(block)
        if finite.all():
            continue
        row, *index = (~finite).nonzero()[0].tolist()
        value = float(block[(row, *index)])
        where = f"row {start + row}"
        if len(index) == 1:
            where += f", column {names[index[0]] if names else index[0]!r}"
        elif index:
            where += f", index {tuple(index)}"
        raise InputError(
            f"{what} have {'NaN' if value != value else value} in {where} (counted from 0): training needs finite "
            "numbers; drop such rows, or use pf.Guard, which models missing cells."
        )
