"""Numbers in any container as a tensor that a model can read."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushforward.data.tables import as_table, is_frame
from pushforward.errors import InputError

__all__ = ["as_tensor_data"]


def as_tensor_data(data: Any, context: Any = None) -> tuple[Tensor, Tensor | None]:
    """Rows, and their context if there is one, as tensors ``(n, ...)``; nothing is cast but what torch lacks.

    Args:
        data: tensor, numpy array, list, or data frame of numbers.
        context: the same, with as many rows, or one row for all.

    Raises:
        InputError: for no rows, text, complex numbers, NaN or infinity (it names row and column).
    """
    rows = _tensor(data, "the data")
    if context is None:
        return rows, None
    given = _tensor(context, "the context")
    if given.dim() < 2 or given.shape[0] not in (1, rows.shape[0]):
        raise InputError(
            f"the context must have shape ({rows.shape[0]}, width), a row for each row of the data; got {tuple(given.shape)}."
        )
    return rows, given.expand(rows.shape[0], *given.shape[1:])


def _tensor(data: Any, name: str) -> Tensor:
    if isinstance(data, Tensor):
        tensor = data.detach()
    else:
        array = _frame_values(data, name) if is_frame(data) else np.asarray(data)
        if array.dtype.kind not in "fiub":
            raise InputError(f"{name} must be numbers; got an array of {array.dtype}.")
        if array.dtype.kind == "u" and array.dtype.itemsize > 1:
            array = array.astype(np.int64)
        if array.dtype.kind == "f" and array.dtype.itemsize > 8:
            array = array.astype(np.float64)
        if not array.dtype.isnative:
            array = array.astype(array.dtype.newbyteorder("="))
        tensor = torch.from_numpy(np.ascontiguousarray(array))
    if tensor.is_complex():
        raise InputError(f"{name} must be real numbers; got {tensor.dtype}.")
    if tensor.dim() == 0 or tensor.shape[0] == 0:
        raise InputError(f"{name} must have at least one row; got shape {tuple(tensor.shape)}.")
    if tensor.is_floating_point() and not torch.isfinite(tensor).all():
        place = tuple((~torch.isfinite(tensor)).nonzero()[0].tolist())
        column = f", column {place[1]}" if len(place) > 1 else ""
        raise InputError(
            f"{name} holds {tensor[place].item()} in row {place[0]}{column} (counted from 0): training needs finite numbers."
        )
    return tensor


def _frame_values(data: Any, name: str) -> np.ndarray:
    table = as_table(data)
    columns = []
    for title in table.column_names:
        column = table.column(title)
        if column.null_count:
            raise InputError(f"{name} has a missing value in column {title!r}: fill or drop it, or use pf.Guard.")
        values = column.to_numpy()
        if values.dtype.kind not in "fiub":
            raise InputError(f"{name} must be numbers; column {title!r} holds {column.type}. pf.Guard reads categories.")
        columns.append(values.astype(np.float64))
    return np.stack(columns, axis=1)
