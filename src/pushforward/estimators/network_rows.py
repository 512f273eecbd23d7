"""Whether calibration data of a guard of a network are its training data, as far as this is cheap to see."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SequentialSampler, Subset, TensorDataset

__all__ = ["share_rows"]

_FIRST = 20
"""First rows that are compared; if all of them differ from each other, two data sets do not begin with them by chance."""


def share_rows(train: Any, calibration: Any) -> bool:
    """Whether data are the same objects, share memory, have the same first rows, or are parts of one data set with common rows.

    Example:
        >>> import torch
        >>> from pushforward.estimators.network_rows import share_rows
        >>> x = torch.randn(300, 4)
        >>> share_rows((x[:200], None), x[100:]), share_rows(x[:200], x[200:])
        (True, False)
    """
    if train is calibration:
        return True
    if isinstance(train, DataLoader) and isinstance(calibration, DataLoader):
        return _reads_all(train) and _reads_all(calibration) and share_rows(train.dataset, calibration.dataset)
    if isinstance(train, Subset) and isinstance(calibration, Subset):
        return train.dataset is calibration.dataset and not set(train.indices).isdisjoint(calibration.indices)
    a, b = _first_array(train), _first_array(calibration)
    return a is not None and b is not None and (a is b or _share_memory(a, b) or _begin_alike(a, b))


def _reads_all(loader: DataLoader) -> bool:
    """Whether a loader gives all rows of its data set, and no sampler of the user chooses them."""
    return type(loader.sampler) in (SequentialSampler, RandomSampler) and type(loader.batch_sampler) is BatchSampler


def _first_array(data: Any) -> Any:
    """The first array of inputs: of a pair, of a list of batches, of a dictionary, of a data set of tensors."""
    if isinstance(data, TensorDataset):
        data = data.tensors
    if isinstance(data, Mapping):
        data = list(data.values())
    if isinstance(data, (tuple, list)):
        return _first_array(data[0]) if data else None
    if isinstance(data, Tensor):
        return data if data.dim() else None
    return data if hasattr(data, "__array__") and hasattr(data, "shape") and len(data.shape) else None


def _share_memory(a: Any, b: Any) -> bool:
    arrays = [_as_array(values) for values in (a, b)]
    if not all(isinstance(values, np.ndarray) for values in arrays):
        return False
    try:
        return np.shares_memory(*arrays, max_work=1000)  # pyright: ignore[reportArgumentType]
    except RuntimeError:  # strides for which the answer takes long
        return False


def _begin_alike(a: Any, b: Any) -> bool:
    if any(isinstance(values, Tensor) and not _is_plain(values) for values in (a, b)):
        return False
    if min(len(a), len(b)) < _FIRST or tuple(a.shape[1:]) != tuple(b.shape[1:]):
        return False
    first, other = (_as_array(values[:_FIRST]) for values in (a, b))
    if first is None or other is None or not np.array_equal(first, other):
        return False
    return len(np.unique(np.asarray(first).reshape(_FIRST, -1), axis=0)) == _FIRST


def _is_plain(values: Tensor) -> bool:
    return values.layout is torch.strided and not values.is_nested


def _as_array(values: Any) -> np.ndarray | None:
    """The values as an array, in the same memory where it is that of an array or of a tensor on the CPU."""
    if isinstance(values, Tensor):
        if not _is_plain(values):
            return None
        own = values.detach().cpu() if len(values) <= _FIRST or values.device.type == "cpu" else None
        own = own.view(torch.int16) if own is not None and own.dtype is torch.bfloat16 else own
        return None if own is None else own.numpy()
    found = values if isinstance(values, np.ndarray) or len(values) > _FIRST else np.asarray(values)
    return found if isinstance(found, np.ndarray) and found.dtype != object else None
