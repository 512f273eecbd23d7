"""`open_sources`: sources of training rows and held-out rows from the data that a user passes."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from pushforward.errors import ConfigError, InputError, warn_caller
from pushforward.training.input_spec import InputSpec
from pushforward.training.seeds import Purpose, generator
from pushforward.training.sources import BATCH_SIZE, ArrayRows, DatasetRows, LoaderRows, Rows, Source
from pushforward.training.weighted_rows import WeightedRows, effective_rows, row_weights

__all__ = ["open_sources"]

_DEVICE_FRACTION = 0.25
"""Fraction of a device's free memory that a data set may use to be stored there."""
_PRECISION_ROWS = 10_000
"""Number of rows from which the mean and spread of columns are estimated for the check of precision."""


def open_sources(
    spec: InputSpec,
    data: Any,
    context: Any,
    validation: Any,
    batch_size: int | None,
    seed: int,
    weights: Any = None,
    validation_weights: Any = None,
) -> tuple[Source, Source | None]:
    """The source of training rows, and the source of held-out rows or None.

    Args:
        spec: what the model reads.
        data: array, tensor, data frame or list, or a pair (x, context) of them, whose second part a model without a context
            ignores; map-style or iterable ``Dataset``; ``DataLoader``; or a source.
        context: context of array data.
        validation: fraction to hold out, or held-out rows of the same kinds, or a pair (x, context) of arrays, or None.
        batch_size: rows in a training batch; None for the default.
        seed: seed of the split and the shuffling.
        weights: of the rows of array data, or None.
        validation_weights: of held-out rows that are given as arrays, or None.

    Raises:
        ConfigError: for a fraction outside [0, 1), a fraction of data that cannot be split, or weights of other data.
        InputError: for data that the model cannot read, or weights that are not one number of at least 0 for each row.
    """
    if isinstance(data, tuple) and len(data) == 2 and context is None:
        data, context = data if spec.context else (_ignoring_context(spec, data, "training data"), None)
    if isinstance(data, tuple) and context is not None and len(_shape(data[0])) == len(spec.shape) + 1:
        raise InputError("the training data are a tuple (x, context), and context= is given too: give one of them.")
    train = _open(spec, data, context, batch_size, seed, "training data")
    if weights is not None:
        train = _weighted(train, weights, batch_size, "rows")
    if validation_weights is not None and (validation is None or isinstance(validation, Real)):
        raise ConfigError(
            "validation_weights= is for held-out rows that are given: a part of the data has its part of weights=."
        )
    if validation is None:
        return train, None
    if isinstance(validation, Real):
        if isinstance(validation, bool) or not 0 <= float(validation) < 1:
            raise ConfigError(f"validation must be a fraction in [0, 1), held-out data, or None; got {validation!r}.")
        return _split(train, float(validation), batch_size, seed)
    if validation is data and isinstance(data, DataLoader) and data.persistent_workers:
        raise ConfigError(
            "a DataLoader with persistent workers has one pass at a time, so it cannot be data and validation: give validation its own."
        )
    x, held_context = validation, None
    if isinstance(validation, tuple) and len(validation) == 2:
        x, held_context = validation if spec.context else (_ignoring_context(spec, validation, "validation data"), None)
    held_out = _open(spec, x, held_context, batch_size or BATCH_SIZE, seed, "validation data")
    if validation_weights is not None:
        held_out = _weighted(held_out, validation_weights, batch_size or BATCH_SIZE, "held-out rows")
    elif isinstance(train, WeightedRows):
        warn_caller(
            "the training rows have weights and the held-out rows have none. If both come from the same distribution, the model is chosen "
            "by the wrong one: give validation_weights= (ones if the held-out rows need none)."
        )
    return train, held_out


def _open(spec: InputSpec, data: Any, context: Any, batch_size: int | None, seed: int, what: str) -> Source:
    if isinstance(data, Source):
        return data
    if isinstance(data, DataLoader | Dataset):
        if context is not None:
            raise ConfigError(
                f"context= is for arrays only: a {type(data).__name__} yields (x, context) for each row or batch."
            )
        if isinstance(data, DataLoader):
            return LoaderRows(spec, data, seed)
        if isinstance(data, IterableDataset):
            return LoaderRows(spec, DataLoader(data, batch_size=batch_size or BATCH_SIZE), seed)
        if type(data) is not TensorDataset or len(data.tensors) > 2:  # a subclass may change the items
            return _open_dataset(spec, data, batch_size, seed, what)
        tensors = list(data.tensors)
        data, context = tensors[0], tensors[1] if len(tensors) == 2 and spec.context else None
    if data is None or isinstance(data, Real | str | bytes) or callable(data):
        raise InputError(
            f"the {what} must be an array, tensor, data frame, torch Dataset or DataLoader; got {type(data).__name__}."
        )
    if isinstance(data, Iterator):
        raise InputError(
            f"the {what} are an iterator, which can be read only once: give an array of all rows, torch.cat(list(...)), or an "
            "IterableDataset, which starts again for each pass."
        )
    x, context = _tensor(data, what), None if context is None else _tensor(context, "context values")
    if context is not None and not spec.context:
        width = context.shape[-1] if context.dim() else 1
        raise ConfigError(f"{spec.model_name} takes no context: build it with context={width}, or pass no context.")
    _require_rows(len(x) if x.dim() else 0, what)
    if context is not None:
        context = spec.expand_context(context, len(x))
        spec.require_finite(context, f"context of the {what}")
    spec.check_shape(x, "data" if what == "training data" else what)
    spec.cast(x[:1], None if context is None else context[:1])
    spec.require_finite(x, what)
    all_rows = torch.arange(len(x))
    if what == "training data":
        some, its_context = ArrayRows(spec, x, context, all_rows, batch_size, seed).raw_sample(_PRECISION_ROWS)
        spec.warn_if_imprecise(some)
        if its_context is not None:
            spec.warn_if_imprecise(its_context, " of the context")
    if spec.device.type != x.device.type and _fits(spec, x):
        x, context = spec.cast(x, context)
    return ArrayRows(spec, x, context, all_rows, batch_size, seed)


def _ignoring_context(spec: InputSpec, pair: tuple[Any, Any], what: str) -> Any:
    """x of a pair (x, y) of arrays, for a model that takes no context; the pair itself if it is two rows.

    Raises:
        InputError: if y has another number of rows.
    """
    first, second = map(_shape, pair)
    if len(first) != len(spec.shape) + 1:
        return pair
    if second[:1] != first[:1]:
        raise InputError(
            f"the {what} are a pair (x, y) with {first[0]} rows of x, and y has the shape {second}: give each row its y, or x "
            f"alone, since {spec.model_name} takes no context."
        )
    return pair[0]


def _shape(part: Any) -> tuple[int, ...]:
    try:
        return tuple(np.shape(part))
    except ValueError:  # rows of unequal length
        return ()


def _weighted(source: Source, weights: Any, batch_size: int | None, what: str) -> Source:
    if type(source) is not ArrayRows:
        raise ConfigError(
            "weights are for arrays, tensors and data frames: give a DataLoader a torch.utils.data.WeightedRandomSampler, and other "
            "data sets as such a loader."
        )
    found = row_weights(weights, len(source.rows), what)
    if found is None:
        return source
    rows = found.nonzero()[:, 0]
    worth = effective_rows(found) / len(rows)
    return WeightedRows(source.spec, source.x, source.context, rows, batch_size, source.seed, found, worth)


def _open_dataset(spec: InputSpec, data: Any, batch_size: int | None, seed: int, what: str) -> Source:
    try:
        count = len(data)
    except TypeError:
        raise InputError(f"the {what} are a {type(data).__name__} without a length: wrap it in a DataLoader.") from None
    _require_rows(count, what)
    return DatasetRows(spec, data, torch.arange(count), batch_size, seed)


def _tensor(data: Any, what: str) -> Tensor:
    if isinstance(data, Tensor):
        if data.layout != torch.strided:
            raise InputError(f"the {what} are a sparse tensor, which is not supported: pass a dense one, x.to_dense().")
        return data.detach()
    from pushforward.data import as_tensor_data

    return as_tensor_data(data, what=f"the {what}")[0]


def _split(train: Source, fraction: float, batch_size: int | None, seed: int) -> tuple[Source, Source | None]:
    if fraction == 0:
        return train, None
    if not isinstance(train, Rows):
        raise ConfigError(
            "a DataLoader cannot be split: pass another loader, a data set or arrays as validation=, or "
            "validation=None to train without early stopping."
        )
    count = len(train.rows)
    held = int(fraction * count + 0.5)
    if held == count:
        raise ConfigError(f"validation={fraction} of {count} rows leaves none to train on: use a smaller fraction.")
    if held == 0:
        return train, None
    shuffled = torch.randperm(count, generator=generator(seed, Purpose.SPLIT))
    # Sorted, so that a pass over either part in order reads memory or files in order.
    held_out = train.part(train.rows[shuffled[:held].sort().values], batch_size or BATCH_SIZE)
    return train.part(train.rows[shuffled[held:].sort().values], batch_size), held_out


def _require_rows(count: int, what: str) -> None:
    if count == 0:
        raise InputError(f"the {what} have no rows.")


def _fits(spec: InputSpec, x: Tensor) -> bool:
    if spec.device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(spec.device)
    return x.numel() * torch.finfo(spec.dtype).bits / 8 < _DEVICE_FRACTION * free
